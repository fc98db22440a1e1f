// The table entry of the portable GEMM.
#include "kernels/sm80/gemm_mma.h"

#include <algorithm>
#include <vector>

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

// By least squares over timings on an H200: see docs/sm90.md.
constexpr double kFixedUs = 5.0;
constexpr double kDramEfficiency = 0.75;
constexpr double kStepUs = 0.35;          // a stage, however little is in it
constexpr double kBlockRowTokenNs = 0.9;  // 16 rows x 128 of k x 8 tokens, on one multiprocessor
constexpr double kWidenNs = 1.6;          // 16 rows x 128 of k

double estimate_us(const GemmDesc& d, const KernelConfig& c, const DeviceInfo& device) {
  const auto ceil_div = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  const int64_t tiles = ceil_div(d.m, c.tile_m) * ceil_div(d.n, c.tile_n);
  const double waves = static_cast<double>(ceil_div(tiles, std::max(device.num_sms, 1)));
  const auto steps = static_cast<double>(ceil_div(d.k, c.tile_k));
  const double row_blocks = static_cast<double>(c.tile_n * c.tile_k) /
                            static_cast<double>(sm90::kBlockRows * sm90::kBlockK);
  const double step_us =
      std::max(kStepUs, 1e-3 * row_blocks * (kWidenNs + kBlockRowTokenNs * c.tile_m / 8));
  const double bytes =
      static_cast<double>(sm90::row_blocks(d.n) * sm90::k_blocks(d.k) * sm90::kBlockBytes);
  const double memory_us = bytes / (std::max(device.bandwidth_gbps, 1.0) * kDramEfficiency) * 1e-3;
  return kFixedUs + std::max(memory_us, waves * steps * step_us);
}

Support can_implement(const GemmDesc& d, const DeviceInfo& device) {
  if (device.kind != DeviceKind::kCuda) return Support::no("runs on a CUDA device only");
  if (device.sm < 80) {
    return Support::no("needs compute capability 8.0 or later, found sm_{}", device.sm);
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
  p.out = sm90::output_from(args, a, 0);
  p.m = static_cast<int>(d.m);
  p.n = static_cast<int>(d.n);
  p.k = static_cast<int>(d.k);
  launch_mma(p, *std::ranges::find(mma_configs(), config, to_table), a.type, stream);
}

}  // namespace

const GemmImpl kMmaGemm = {.name = "sm80_fp4_mma_gemm",
                           .can_implement = can_implement,
                           .launch = launch,
                           .candidates = candidates,
                           .estimate_us = estimate_us,
                           .workspace_bytes = workspace_bytes};

}  // namespace nibble::sm80
