// What runs on every chip from sm_80 on.
#pragma once

#include "ops/gemm.h"

namespace nibble::sm80 {

// "sm80_fp4_mma_gemm": reads the weights as sm_90 has them.
extern const GemmImpl kMmaGemm;

}  // namespace nibble::sm80
