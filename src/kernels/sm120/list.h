#pragma once

#include "ops/kernel_list.h"

namespace nibble::sm120 {

KernelList kernels();

}  // namespace nibble::sm120
