// What one backend folder offers: its entries of every op's table, fastest first.
#pragma once

#include <span>

#include "ops/gemm.h"
#include "ops/model_ops.h"
#include "ops/quantize.h"

namespace nibble {

// kernels/<backend>/list.h declares `KernelList kernels()`. A backend that is not built returns {}.
struct KernelList {
  std::span<const WeightLayoutImpl> weight_layout = {};
  std::span<const GemmImpl> gemm = {};
  std::span<const QuantizeImpl> quantize = {};
  std::span<const DequantizeImpl> dequantize = {};
  std::span<const RmsNormImpl> rms_norm = {};
  std::span<const RopeImpl> rope = {};
  std::span<const AttentionImpl> attention = {};
  std::span<const SiluMulImpl> silu_mul = {};
  std::span<const EmbeddingImpl> embedding = {};
  std::span<const SamplingImpl> sampling = {};
};

}  // namespace nibble
