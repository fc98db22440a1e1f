// The decode GEMM's table entry: which cuts of the work there are, and what each costs.
#include "kernels/sm90/gemm_decode.h"

#include <algorithm>
#include <vector>

#include "kernels/cuda/divide.h"
#include "kernels/sm90/blocks.h"
#include "kernels/sm90/gemm.h"
#include "kernels/sm90/gemm_operands.h"

namespace nibble::sm90 {
namespace {

// A configuration of the table: tile_m tokens, tile_n rows and tile_k of k a block and step, k
// split over split_k = cluster blocks; stages counts a warp's slots of 16 rows, more of them where
// it has two row tiles.
constexpr int kMaxOneTileStages = 5;

KernelConfig to_table(const DecodeConfig& c) {
  return {.tile_m = c.tokens,
          .tile_n = c.warps_n * c.row_tiles * kBlockRows,
          .tile_k = c.warps_k * kBlockK,
          .stages = c.stages * c.row_tiles,
          .split_k = c.cluster,
          .cluster = c.cluster};
}
DecodeConfig from_table(const KernelConfig& c) {
  const int row_tiles = c.stages > kMaxOneTileStages ? 2 : 1;
  return {.tokens = c.tile_m,
          .row_tiles = row_tiles,
          .stages = c.stages / row_tiles,
          .warps_n = c.tile_n / (row_tiles * kBlockRows),
          .warps_k = c.tile_k / kBlockK,
          .cluster = c.cluster};
}

// Fewer warps than this leave a multiprocessor too few loads in flight.
constexpr int min_warps(int tokens) { return tokens == 8 ? 9 : 7; }
constexpr int kWarpsN[] = {1, 2, 4, 7, 8, 9, 10, 14, 16, 18, 20};
constexpr int kWarpsK[] = {1, 2, 4};
constexpr int kClusters[] = {1, 2, 4, 8};

std::vector<DecodeConfig> all_configs() {
  std::vector<DecodeConfig> all;
  for (DecodeConfig c : decode_kernels()) {
    for (const int warps_n : kWarpsN) {
      for (const int warps_k : kWarpsK) {
        for (const int cluster : kClusters) {
          c.warps_n = warps_n;
          c.warps_k = warps_k;
          c.cluster = cluster;
          if (warps_n * warps_k >= min_warps(c.tokens) && warps_n * c.row_tiles % cluster == 0) {
            all.push_back(c);
          }
        }
      }
    }
  }
  return all;
}

// The span holds until the thread's next call.
std::span<const KernelConfig> candidates(const GemmDesc& d, const DeviceInfo&) {
  static const std::vector<DecodeConfig> all = all_configs();
  thread_local std::vector<KernelConfig> fitting;
  fitting.clear();
  for (const DecodeConfig& c : all) {
    const bool too_many = c.tokens > 8 && c.tokens / 2 >= d.m;
    if (!too_many && decode_fits(c, std::min<int64_t>(d.m, c.tokens), d.n, d.k)) {
      fitting.push_back(to_table(c));
    }
  }
  return fitting;
}

// By tools/fit_sm90.py, with the wgmma GEMM's (gemm_wgmma_cost.cc). Activations are counted over
// all blocks, as weights are: counted for a block, what was chosen was 1.3 % slower.
constexpr double kFixedUs = 2.94;  // launch, first loads
constexpr double kClusterUs = 0.144;
constexpr double kExtraWaveUs = 2.03;
// Of the time that all weights, or every block's activations, take at full bandwidth.
constexpr double kDramShare = 0.427;
constexpr double kActivationShare = 0.976;
constexpr double kSumBytesPerNs = 37.1;  // the partial sums of a block
constexpr double kStepNs = 5.69;         // 16 x 16 weights, widened by one scheduler
constexpr double kStepTokensNs = 2.77;   // and multiplied by 8 tokens
constexpr int kSchedulers = 4;
// Blocks of clusters above two that can be resident at once, of 132: clusters stay within a GPC.
constexpr double kLargeClusterShare = 120.0 / 132.0;

double estimate_us(const GemmDesc& d, const KernelConfig& config, const DeviceInfo& device) {
  const DecodeConfig c = from_table(config);
  using cuda::ceil_div;
  const int64_t tiles = ceil_div(d.n, config.tile_n), blocks = tiles * c.cluster;
  const int64_t resident =
      c.cluster <= 2 ? device.num_sms : static_cast<int64_t>(device.num_sms * kLargeClusterShare);
  const int64_t waves = ceil_div(blocks, std::max<int64_t>(resident, 1));
  const int64_t slice = ceil_div(k_blocks(d.k), c.cluster), steps = ceil_div(slice, c.warps_k);
  const int64_t passes = ceil_div(d.m, c.tokens), tokens = std::min<int64_t>(d.m, c.tokens);
  const double activations = static_cast<double>(blocks * tokens * slice * kBlockK * 2);
  const bool alone = c.cluster * c.warps_k == 1;
  const double sums =
      alone ? 0.0 : static_cast<double>(c.warps_k * config.tile_n * ((tokens + 1) / 2) * 8);
  const double scheduler_steps = static_cast<double>(
      steps * ceil_div(c.warps_n * c.warps_k * waves, kSchedulers) * c.row_tiles * 8);
  const auto all_weights = static_cast<double>(cuda::all_block_bytes(d.n, d.k));
  const double ns = (kDramShare * all_weights + kActivationShare * activations) /
                        (device.bandwidth_gbps * kDramEfficiency) +
                    static_cast<double>(waves) * sums / kSumBytesPerNs +
                    scheduler_steps * (kStepNs + kStepTokensNs * c.tokens / 8);
  return static_cast<double>(passes) * (kFixedUs + (c.cluster > 1 ? kClusterUs : 0.0) +
                                        kExtraWaveUs * static_cast<double>(waves - 1) + ns * 1e-3);
}

Support can_implement(const GemmDesc& d, const DeviceInfo& device) {
  if (const Support s = takes_operands(d, device); !s) return s;
  if (candidates(d, device).empty()) {
    return Support::no("k = {} does not fit in shared memory, a block at a time", d.k);
  }
  return Support::yes();
}

size_t workspace_bytes(const GemmDesc& d, const KernelConfig&, const DeviceInfo&) {
  return activation_bytes(d);
}

void launch(const GemmArgs& args, const KernelConfig& config, Stream stream) {
  check_operands(args, stream);
  const GemmDesc& d = args.desc;
  const DecodeConfig c = from_table(config);
  const Activations a = prepare_activations(args, stream);
  stream.pdl |= a.own_kernel;
  const Output out = output_of(args, a);
  for (int64_t first = 0; first < d.m; first += c.tokens) {
    DecodeParams p = {};
    p.weights = args.b->codes;
    p.row_alpha = args.b->row_alpha;
    p.a = a.data + first * a.stride;
    p.a_stride = a.stride;
    p.out = out.from(first);
    p.m = static_cast<int>(std::min<int64_t>(c.tokens, d.m - first));
    p.n = static_cast<int>(d.n);
    p.k = static_cast<int>(d.k);
    launch_decode(p, c, a.type, stream);
  }
}

void load(const GemmDesc& d, const KernelConfig& config, Stream stream) {
  launch(without_memory(d), config, stream);
}

}  // namespace

const GemmImpl kDecodeGemm = {.name = "sm90_fp4_decode_gemm",
                              .can_implement = can_implement,
                              .launch = launch,
                              .candidates = candidates,
                              .estimate_us = estimate_us,
                              .workspace_bytes = workspace_bytes,
                              .load = load};

}  // namespace nibble::sm90
