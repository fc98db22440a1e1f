#pragma once

#include "ops/gemm.h"

namespace nibble::cpu {

extern const GemmImpl kAvx2RowGemm;    // "cpu_avx2_row_gemm": canonical fp8, 16- and 32-bit weights
extern const GemmImpl kAvx512RowGemm;  // "cpu_avx512_row_gemm"

}  // namespace nibble::cpu
