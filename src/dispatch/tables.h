// One ordered table per op over every backend: the fastest first, the reference last.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "ops/kernel_list.h"

namespace nibble {

// The name that NIBBLE_FORCE_IMPL, the trace and the case files use for an op.
template <class Impl>
inline constexpr std::string_view kOpName = "";
template <>
inline constexpr std::string_view kOpName<GemmImpl> = "gemm";
template <>
inline constexpr std::string_view kOpName<QuantizeImpl> = "quantize";
template <>
inline constexpr std::string_view kOpName<DequantizeImpl> = "dequantize";
template <>
inline constexpr std::string_view kOpName<RmsNormImpl> = "rms_norm";
template <>
inline constexpr std::string_view kOpName<RopeImpl> = "rope";
template <>
inline constexpr std::string_view kOpName<AttentionImpl> = "attention";
template <>
inline constexpr std::string_view kOpName<SiluMulImpl> = "silu_mul";
template <>
inline constexpr std::string_view kOpName<EmbeddingImpl> = "embedding";
template <>
inline constexpr std::string_view kOpName<SamplingImpl> = "sampling";

// Every implementation of an op, in order.
template <class Impl>
std::span<const Impl> impls();

std::span<const WeightLayoutImpl> weight_layouts();

// Implementation names by op, for errors and listings.
struct OpTable {
  std::string_view op;
  std::vector<std::string_view> impls;
};
std::span<const OpTable> op_tables();

}  // namespace nibble
