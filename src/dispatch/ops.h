// Runs an op with the best implementation: validates, selects, launches. What a model's forward is
// written with, beside GemmPlan (nibble/gemm.h).
#pragma once

#include "nibble/device.h"
#include "ops/model_ops.h"
#include "ops/quantize.h"

namespace nibble {

// Each throws kInvalidArgument for malformed arguments and kUnsupported, with every
// implementation's refusal, where none takes them.
void rms_norm(const RmsNormArgs& args, const Device& device);
void rope(const RopeArgs& args, const Device& device);
void attention(const AttentionArgs& args, const Device& device);
void silu_mul(const SiluMulArgs& args, const Device& device);
void embedding(const EmbeddingArgs& args, const Device& device);
void sample(const SamplingArgs& args, const Device& device);
void quantize(const QuantizeArgs& args, const Device& device);
void dequantize(const DequantizeArgs& args, const Device& device);

}  // namespace nibble
