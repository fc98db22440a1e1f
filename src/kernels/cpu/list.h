#pragma once

#include "ops/kernel_list.h"

namespace nibble::cpu {

KernelList kernels();

}  // namespace nibble::cpu
