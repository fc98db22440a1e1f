// The table entry of the portable GEMM.
#include "kernels/sm80/gemm_mma.h"

#include <algorithm>
#include <vector>

#include "kernels/cuda/divide.h"
#include "kernels/sm80/gemm.h"
#include "kernels/sm90/blocks.h"
#include "kernels/sm90/gemm_operands.h"

namespace nibble::sm80 {
namespace {

// tile_m tokens, tile_n rows, tile_k of k a step.
KernelConfig to_table(const MmaConfig& c) {
  return {.tile_m = c.tokens,
          .tile_n = c.warps_n * c.row_tiles * sm90::kBlockRows,
          .tile_k = c.warps_k * sm90::kBlockK,
          .stages = c.stages};
}

std::span<const KernelConfig> candidates(const GemmDesc&, const DeviceInfo&) {
  static const auto all = [] {
    std::vector<KernelConfig> configs;
    for (const MmaConfig& c : mma_configs()) configs.push_back(to_table(c));
    return configs;
  }();
  return all;
}

// Least squares over 19 timings of `nibble bench gemm --device cuda` on an H200 (commit 4eb8131),
// 14 % off in the mean; 8 to 32 tokens a tile were timed. Other chips have other constants: what
// counts is the order of the candidates and, on sm_90, that its own kernels stay ahead, 1.4 to 4
// times.
constexpr double kFixedUs = 3.9;
constexpr double kDramEfficiency = 0.52;
constexpr double kStepUs = 0.60;         // a stage, however little is in it
constexpr double kBlockTokensNs = 11.7;  // 16 rows x 128 of k x 8 tokens, on one multiprocessor

double estimate_us(const GemmDesc& d, const KernelConfig& c, const DeviceInfo& device) {
  using cuda::ceil_div;
  const int64_t tiles = ceil_div(d.m, c.tile_m) * ceil_div(d.n, c.tile_n);
  // Several blocks share a multiprocessor, so the last wave is rarely a whole one.
  const double waves = std::max(1.0, static_cast<double>(tiles) / std::max(device.num_sms, 1));
  const auto steps = static_cast<double>(ceil_div(d.k, c.tile_k));
  const double blocks = static_cast<double>(c.tile_n / sm90::kBlockRows) *
                        static_cast<double>(c.tile_k / sm90::kBlockK) * c.tile_m / 8;
  const auto bytes = static_cast<double>(cuda::all_block_bytes(d.n, d.k));
  const double memory_us = bytes / (std::max(device.bandwidth_gbps, 1.0) * kDramEfficiency) * 1e-3;
  return kFixedUs + std::max(memory_us, waves * steps * (kStepUs + 1e-3 * kBlockTokensNs * blocks));
}

Support can_implement(const GemmDesc& d, const DeviceInfo& device) {
  if (device.kind != DeviceKind::kCuda) return Support::no("runs on a CUDA device only");
  if (device.sm < 80) {
    return Support::no("needs compute capability 8.0 or later, found sm_{}", device.sm);
  }
  // Tiles of rows are the grid's second dimension.
  constexpr int64_t kMostTiles = 65535;
  const int64_t rows = std::ranges::min(candidates(d, device), {}, &KernelConfig::tile_n).tile_n;
  if (d.n > kMostTiles * rows) {
    return Support::no("n must be at most {}, found {}", kMostTiles * rows, d.n);
  }
  return sm90::takes_problem(d);
}

size_t workspace_bytes(const GemmDesc& d, const KernelConfig&, const DeviceInfo&) {
  return sm90::activation_bytes(d);
}

void launch(const GemmArgs& args, const KernelConfig& config, Stream stream) {
  sm90::check_operands(args, stream);
  const GemmDesc& d = args.desc;
  const sm90::Activations a = sm90::prepare_activations(args, stream);
  MmaParams p = {};
  p.weights = args.b->codes;
  p.row_alpha = args.b->row_alpha;
  p.a = a.data;
  p.a_stride = a.stride;
  p.out = sm90::output_of(args, a);
  p.m = static_cast<int>(d.m);
  p.n = static_cast<int>(d.n);
  p.k = static_cast<int>(d.k);
  launch_mma(p, *std::ranges::find(mma_configs(), config, to_table), a.type, stream);
}

void load(const GemmDesc& d, const KernelConfig& config, Stream stream) {
  launch(without_memory(d), config, stream);
}

}  // namespace

const GemmImpl kMmaGemm = {.name = "sm80_fp4_mma_gemm",
                           .can_implement = can_implement,
                           .launch = launch,
                           .candidates = candidates,
                           .estimate_us = estimate_us,
                           .workspace_bytes = workspace_bytes,
                           .load = load};

}  // namespace nibble::sm80
