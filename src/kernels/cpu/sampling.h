// Drawing the next token from logits; what takes long, the passes over all of them, is the caller's
// instruction set's.
#pragma once

#include "kernels/cpu/vector_loops.h"
#include "ops/model_ops.h"

namespace nibble::cpu {

void draw(const SamplingArgs& args, const SamplingLoops& loops);

extern const SamplingImpl kPortableSampling;  // "cpu_portable_sampling"

}  // namespace nibble::cpu
