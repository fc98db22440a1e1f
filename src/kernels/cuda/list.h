#pragma once

#include "ops/kernel_list.h"

namespace nibble::cuda {

KernelList kernels();

}  // namespace nibble::cuda
