// The ops around the GEMMs with AVX2 and AVX-512: rows over threads around the loops of
// vector_loops.h.
#pragma once

#include "ops/model_ops.h"

namespace nibble::cpu {

extern const RmsNormImpl kAvx2RmsNorm, kAvx512RmsNorm;        // "cpu_avx2_rms_norm", ...
extern const RopeImpl kAvx2Rope, kAvx512Rope;                 // "cpu_avx2_rope"
extern const SiluMulImpl kAvx2SiluMul, kAvx512SiluMul;        // "cpu_avx2_silu_mul"
extern const AttentionImpl kAvx2Attention, kAvx512Attention;  // "cpu_avx2_attention"
extern const EmbeddingImpl kAvx2Embedding, kAvx512Embedding;  // "cpu_avx2_embedding"
extern const SamplingImpl kAvx2Sampling, kAvx512Sampling;     // "cpu_avx2_sampling"

}  // namespace nibble::cpu
