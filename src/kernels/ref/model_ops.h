#pragma once

#include "ops/model_ops.h"

namespace nibble::ref {

extern const RmsNormImpl kRmsNorm;
extern const RopeImpl kRope;
extern const AttentionImpl kAttention;
extern const SiluMulImpl kSiluMul;
extern const EmbeddingImpl kEmbedding;
extern const SamplingImpl kSampling;

}  // namespace nibble::ref
