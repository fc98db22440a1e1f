#pragma once

#include "ops/gemm.h"

namespace nibble::cpu {

extern const WeightLayoutImpl kCanonicalLayout;

// "cpu_portable_gemm": canonical weights of every format, fp32 activations, all modes but fp4.
extern const GemmImpl kPortableGemm;

}  // namespace nibble::cpu
