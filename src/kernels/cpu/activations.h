#pragma once

#include "ops/gemm.h"

namespace nibble::cpu {

// A's values as the activation mode makes them: A itself in the 16bit mode, else [m, k] fp32 in the
// workspace.
MatrixView rounded_activations(const GemmArgs& args, Stream stream);
size_t rounded_activation_bytes(const GemmDesc& desc);

}  // namespace nibble::cpu
