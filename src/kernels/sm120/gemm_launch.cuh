// The instantiations of gemm.cuh for one policy, and their launch.
#pragma once

#include "base/launch.h"
#include "kernels/sm120/gemm.cuh"

namespace nibble::sm120 {

// By token tiles of eight; see kConfigs.
template <class Mma>
constexpr auto kernel_of(int tokens) {
  switch (tokens) {
    case 8:
      return block_scaled_gemm<Mma, 1, 4>;
    case 16:
      return block_scaled_gemm<Mma, 2, 4>;
    case 32:
      return block_scaled_gemm<Mma, 4, 4>;
    case 64:
      return block_scaled_gemm<Mma, 8, 3>;
    default:
      return block_scaled_gemm<Mma, 16, 3>;
  }
}

template <class Mma>
void launch_gemm(const GemmParams& params, const GemmConfig& c, Stream stream) {
  constexpr const char* kName = "sm120_fp4_gemm";
  const auto ceil_div = [](int64_t a, int64_t b) { return static_cast<unsigned>((a + b - 1) / b); };
  const auto log2 = [](int x) { return x == 8 ? 3 : x / 2; };
  GemmParams p = params;
  p.warps_n_log2 = log2(c.warps_n);
  p.warps_k_log2 = log2(c.warps_k);
  const bool resident = p.tokens.scales == nullptr;
  const GemmShared at(c, resident ? longest_k_range(p.k, p.split) : 0);
  cuda::launch({.grid = dim3(ceil_div(p.m, c.tokens), ceil_div(p.n, c.warps_n * kBlockRows),
                             static_cast<unsigned>(p.split)),
                .block = static_cast<unsigned>(c.warps_n * c.warps_k * 32),
                .shared_bytes = static_cast<size_t>(at.bytes),
                .pdl = stream.pdl,
                .stream = stream},
               kName, kernel_of<Mma>(c.tokens), p);
  if (p.split == 1) return;
  cuda::launch({.grid = dim3(ceil_div(p.m, kAddTokens), ceil_div(p.n, kAddRows)),
                .block = kMaxThreads,
                .pdl = stream.pdl,
                .stream = stream},
               kName, add_parts<Mma>, p);
}

template <template <WeightFormat> class Mma>
void launch_gemm_of(const GemmParams& params, const GemmConfig& config, WeightFormat format,
                    Stream stream) {
  if (format == WeightFormat::kMxfp4) {
    return launch_gemm<Mma<WeightFormat::kMxfp4>>(params, config, stream);
  }
  launch_gemm<Mma<WeightFormat::kNvfp4>>(params, config, stream);
}

}  // namespace nibble::sm120
