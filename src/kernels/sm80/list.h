#pragma once

#include "ops/kernel_list.h"

namespace nibble::sm80 {

KernelList kernels();

}  // namespace nibble::sm80
