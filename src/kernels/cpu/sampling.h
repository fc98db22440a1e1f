#pragma once

#include "ops/model_ops.h"

namespace nibble::cpu {

// Sampling once the index of the largest logit is known.
void draw(const SamplingArgs& args, int32_t best);

extern const SamplingImpl kPortableSampling;  // "cpu_portable_sampling"

}  // namespace nibble::cpu
