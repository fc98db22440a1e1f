#pragma once

#include "ops/gemm.h"

namespace nibble::ref {

extern const GemmImpl kGemm;  // "ref_gemm": every format, layout and activation mode

}  // namespace nibble::ref
