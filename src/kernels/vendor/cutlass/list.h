#pragma once

#include "ops/kernel_list.h"

namespace nibble::cutlass_gemm {

KernelList kernels();

}  // namespace nibble::cutlass_gemm
