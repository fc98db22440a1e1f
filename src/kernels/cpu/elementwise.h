#pragma once

#include "ops/model_ops.h"

namespace nibble::cpu {

extern const RmsNormImpl kPortableRmsNorm;      // "cpu_portable_rms_norm": fp32
extern const RopeImpl kPortableRope;            // "cpu_portable_rope": fp32
extern const SiluMulImpl kPortableSiluMul;      // "cpu_portable_silu_mul": fp32
extern const EmbeddingImpl kPortableEmbedding;  // "cpu_portable_embedding": every table, to fp32

}  // namespace nibble::cpu
