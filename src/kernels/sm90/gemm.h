// What sm_90 offers to dispatch: the prepared layout and the GEMMs that read it.
#pragma once

#include "ops/gemm.h"

namespace nibble::sm90 {

// WeightLayout::kSm90, packed on the host and kept in device memory.
extern const WeightLayoutImpl kLayout;

// "sm90_fp4_decode_gemm": reads the weights once per pass of up to 16 tokens.
extern const GemmImpl kDecodeGemm;

// "sm90_fp4_wgmma_gemm": tiles of tokens and rows, for any number of tokens.
extern const GemmImpl kWgmmaGemm;

}  // namespace nibble::sm90
