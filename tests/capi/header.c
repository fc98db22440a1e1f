#include "nibble/nibble.h"

nibble_status use_as_c(nibble_device** device);
nibble_status use_as_c(nibble_device** device) { return nibble_device_create_cpu(1, device); }
