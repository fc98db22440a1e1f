#pragma once

#include "ops/kernel_list.h"

namespace nibble::cublaslt {

KernelList kernels();

}  // namespace nibble::cublaslt
