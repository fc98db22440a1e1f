// For tests; not in the dispatcher's tables.
#pragma once

#include "ops/kernel_list.h"

namespace nibble::sm120 {

// WeightLayout::kSm120 and "sm120_fp4_gemm_emulated", on sm_90.
KernelList emulated_kernels();

}  // namespace nibble::sm120
