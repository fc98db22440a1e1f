// The prefill GEMM's table entry: which cuts of the work there are, and what each costs.
#include "kernels/sm90/gemm_wgmma.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/sm90/blocks.h"
#include "kernels/sm90/gemm.h"
#include "kernels/sm90/gemm_operands.h"

namespace nibble::sm90 {
namespace {

constexpr int kSplits[] = {1, 2, 3, 4, 5};  // more never won
// Clusters of one to five blocks that an H200's 132 multiprocessors hold at once: they stay within
// a GPC. One more of them than fit doubles a GEMM's time.
constexpr int kResidentClusters[] = {132, 66, 38, 30, 22};
constexpr int kH200Sms = 132;

// A configuration of the table: tile_m tokens x tile_n rows a block, tile_k of k at a time, and k
// split over split_k blocks, or clusters of two that share their tokens; a stream of tiles has no
// split_k. The last tokens' tiles may be rest_m x rest_n.
KernelConfig to_table(const WgmmaConfig& c) {
  return {.tile_m = c.tokens,
          .tile_n = c.groups * kGroupRows,
          .tile_k = c.k_groups * kBlockK,
          .stages = wgmma_stages(c),
          .split_k = c.stream ? 0 : c.split,
          .cluster = c.cluster,
          .rest_m = c.rest_tokens,
          .rest_n = c.rest_groups * kGroupRows};
}
WgmmaConfig from_table(const KernelConfig& c) {
  return {.tokens = c.tile_m,
          .groups = c.tile_n / kGroupRows,
          .k_groups = c.tile_k / kBlockK,
          .split = std::max(1, c.split_k),
          .cluster = c.cluster,
          .stream = c.split_k == 0,
          .rest_tokens = c.rest_m,
          .rest_groups = c.rest_n / kGroupRows};
}

std::vector<WgmmaConfig> all_configs() {
  std::vector<WgmmaConfig> all;
  for (const WgmmaKernel& kernel : wgmma_kernels()) {
    const int pair = kernel.multicast ? 2 : 1;
    for (int groups = 1; groups * kernel.k_groups <= kernel.max_groups; ++groups) {
      const bool known = std::ranges::any_of(all, [&](const WgmmaConfig& c) {
        return c.tokens == kernel.tokens && c.groups == groups && c.k_groups == kernel.k_groups &&
               pair == 1;
      });
      if (known) continue;
      // Alone, 64 rows read too many activations for a GEMM that is cut for its length: up to half
      // of the time lost.
      if (groups * pair > 1 && kernel.k_groups == 1) {
        all.push_back({kernel.tokens, groups, 1, 1, pair, true});
      }
      for (const int split : kSplits) {
        if (split > 1 && pair > 1) continue;
        all.push_back({kernel.tokens, groups, kernel.k_groups, split, split * pair, false});
      }
    }
  }
  all.insert(all.end(), wgmma_mixes().begin(), wgmma_mixes().end());
  return all;
}

int resident_clusters(int cluster, const DeviceInfo& device) {
  return std::max(1, kResidentClusters[cluster - 1] * device.num_sms / kH200Sms);
}

// Whether fewer tokens a tile are enough for the same cut: the copy engine makes those that a tile
// lacks as zeros, and they are multiplied as well.
bool too_wide(const WgmmaConfig& c, const GemmDesc& d) {
  if (c.mixed()) return false;
  const int64_t tokens = ceil_div(d.m, ceil_div(d.m, c.tokens));
  return std::ranges::any_of(wgmma_kernels(), [&](const WgmmaKernel& kernel) {
    WgmmaConfig narrower = c;
    narrower.tokens = kernel.tokens;
    return kernel.tokens < c.tokens && kernel.tokens >= tokens && wgmma_fits(narrower, d.k);
  });
}

// The span holds until the thread's next call.
std::span<const KernelConfig> candidates(const GemmDesc& d, const DeviceInfo& device) {
  static const std::vector<WgmmaConfig> all = all_configs();
  thread_local std::vector<KernelConfig> fitting;
  fitting.clear();
  constexpr int kOneTile = 64;  // up to so many tokens, reading the weights for two tiles lost
  const int narrowest = all.front().tokens;
  for (const WgmmaConfig& c : all) {
    const bool too_many = c.tokens > narrowest && c.tokens / 2 >= d.m;
    const bool too_few = c.tokens < std::min<int64_t>(d.m, kOneTile);
    const int resident = resident_clusters(c.cluster, device);
    const int tiles = wgmma_tiles(c, d.m, d.n, resident).tiles();
    // A cluster that shares a tile starts anew for the next one, so a second wave always lost.
    const bool too_split = c.split * c.k_groups > 1 && tiles > resident;
    const bool even = c.stream && tiles % resident == 0;
    // Two kinds of tiles mend what one kind leaves over. Of many tiles that is little.
    const bool one_kind = c.mixed() && (d.m > kTokenGroup * (c.tokens + c.rest_tokens) ||
                                        wgmma_mix(c, d.m, d.n, device.num_sms).rest_workers == 0);
    if (!too_many && !too_few && !too_split && !even && !one_kind && wgmma_fits(c, d.k) &&
        !too_wide(c, d)) {
      fitting.push_back(to_table(c));
    }
  }
  return fitting;
}

// By tools/fit_sm90_wgmma.py from timings of bench_sm90_gemm on an H200: 18 layers, m = 16 to 1024.
// Of several fits that are nearly as good, the one that chose best on other layers (docs/sm90.md).
// By a fit without a layer, what is chosen for it is 0.5 % slower than the best candidate
// (geometric mean; 9 % at worst). What runs beside each other adds up as the root of squares.
constexpr double kFixedUs = 2.4;            // launch, first loads, output
constexpr double kFewTokensUs = 0.35;       // up to 8; by hand: without, beside the decode GEMM's
                                            // estimates 8192 x 3072 at m = 1 lost 16 %
constexpr double kNextTileUs = 1.24;        // nothing is multiplied while a tile is written out
constexpr double kReduceUs = 0.325;         // the sums of a tile that two blocks share,
constexpr double kMorePartsUs = 0.0926;     // of each part more,
constexpr double kReduceNs = 11.8;          // a token of 64 rows that another part sums
constexpr double kStreamUs = 0.777;         // a block's sums that come through L2,
constexpr double kStreamNs = 16.1;          // a token of 64 rows of them
constexpr double kMacsPerNs = 3920.0;       // of a multiprocessor's tensor cores,
constexpr double kPowerMacsPerNs = 3880.0;  // and where all of them are at the card's power
constexpr double kWidenNs = 138.0;          // 64 rows x 128 of k, with reading them,
constexpr double kPowerWidenNs = 58.6;      // and at the card's power: why more tokens a tile win
constexpr double kStepNs = 171.0;           // 128 of k, however few rows
constexpr double kWideTile = 1.15;  // over 128 tokens: too few registers to hide what is read
constexpr double kMix = 0.98;       // two kinds of tiles in one grid, by hand (129 cells of 14
constexpr double kWideMix = 1.06;   // layers); and where they have over 128 tokens
constexpr double kDramEfficiency = 0.75;  // by hand: by the fit there was no limit (3.7)

double estimate_us(const GemmDesc& d, const KernelConfig& config, const DeviceInfo& device) {
  const WgmmaConfig c = from_table(config);
  const int clusters = resident_clusters(c.cluster, device);
  const auto steps = static_cast<double>(ceil_div(ceil_div(k_blocks(d.k), c.split), c.k_groups));
  double tiles = 0.0, waves = 0.0, multiplying = 0.0, power = 0.0;
  const auto add_tiles = [&](const WgmmaConfig& kind, int64_t m, int workers) {
    const auto tile_ns = [&](int groups) {
      const double multiply =
          static_cast<double>(groups * kGroupRows) * kind.tokens * kBlockK / kMacsPerNs;
      const double step = std::hypot(multiply, groups * kWidenNs, kStepNs);
      return steps * step * (kind.tokens > 128 && !kind.mixed() ? kWideTile : 1.0);
    };
    const WgmmaTiles cut = wgmma_tiles(kind, m, d.n, workers);
    const double even_waves = static_cast<double>(cut.tiles()) / workers;
    const double own_waves = kind.stream ? even_waves : std::ceil(even_waves);
    double own = own_waves * tile_ns(kind.groups * kind.k_groups);
    if (cut.lower()) {
      own = (own_waves - 1.0) * tile_ns(kind.groups) +
            tile_ns(cut.low_groups * kind.split / kind.cluster);
    }
    tiles += cut.tiles();
    waves = std::max(waves, own_waves);
    multiplying = std::max(multiplying, own);
    // What all of them together take at the card's power, however the work is shared out.
    power += cut.token_tiles *
             (static_cast<double>(kind.tokens) * d.n * d.k / kPowerMacsPerNs +
              static_cast<double>(ceil_div(d.n, kGroupRows) * k_blocks(d.k)) * kPowerWidenNs) /
             device.num_sms;
  };
  if (c.mixed()) {
    const WgmmaMix mix = wgmma_mix(c, d.m, d.n, device.num_sms);
    add_tiles(c, mix.m, mix.workers);
    if (mix.rest_workers > 0) add_tiles(wgmma_rest(c), d.m - mix.m, mix.rest_workers);
  } else {
    add_tiles(c, d.m, clusters);
  }
  multiplying = std::max(multiplying, power);
  if (c.mixed()) multiplying *= c.tokens > 128 ? kWideMix : kMix;
  const double all_bytes = static_cast<double>(row_blocks(d.n) * k_blocks(d.k)) * kBlockBytes +
                           2.0 * static_cast<double>(d.m) * static_cast<double>(d.k + d.n);
  const double dram = all_bytes / (device.bandwidth_gbps * kDramEfficiency);
  const double outputs = static_cast<double>(c.groups) * c.tokens;
  double us = kFixedUs + 1e-3 * std::max(multiplying, dram);
  if (d.m <= 8) us += kFewTokensUs;
  us += kNextTileUs * std::max(0.0, waves - 1.0);
  if (c.stream) {
    const double pieces = std::max(1.0, clusters / tiles);
    us += pieces * kStreamUs + 1e-3 * kStreamNs * outputs;
  }
  if (const int parts = c.split * c.k_groups; parts > 1) {
    us += (c.split > 1 ? kReduceUs : 0.0) + kMorePartsUs * (parts - 2);
    us += 1e-3 * kReduceNs * outputs * (parts - 1) / parts;
  }
  return us;
}

Support can_implement(const GemmDesc& d, const DeviceInfo& device) {
  if (const Support s = takes_operands(d, device); !s) return s;
  constexpr int64_t kMaxTiles = int64_t{1} << 27;  // times a cluster's blocks, in 32 bits
  if (ceil_div(d.m, wgmma_kernels()[0].tokens) * ceil_div(d.n, kGroupRows) > kMaxTiles) {
    return Support::no("m = {} and n = {} give more than {} tiles", d.m, d.n, kMaxTiles);
  }
  return Support::yes();
}

constexpr uintptr_t kWideBytes = 16;  // what output is written in where it is aligned so
bool is_wide(const void* data, int64_t stride, size_t element) {
  return (reinterpret_cast<uintptr_t>(data) | stride * element) % kWideBytes == 0;
}

size_t workspace_bytes(const GemmDesc& d, const KernelConfig& config, const DeviceInfo& device) {
  return activation_bytes(d) + wgmma_workspace_bytes(from_table(config), device.num_sms);
}

void launch(const GemmArgs& args, const KernelConfig& config, Stream stream) {
  check_operands(args, stream);
  const GemmDesc& d = args.desc;
  const WgmmaConfig c = from_table(config);
  const size_t element = size_of(d.d_type);
  const Activations a = prepare_activations(args, stream);
  WgmmaParams p = {};
  p.weights = args.b->codes;
  p.row_alpha = args.b->row_alpha;
  p.out = output_of(args, a);
  p.wide_output = is_wide(p.out.d, p.out.d_stride, element) &&
                  (p.out.c == nullptr || is_wide(p.out.c, p.out.c_stride, element));
  p.m = static_cast<int>(d.m);
  p.n = static_cast<int>(d.n);
  p.k = static_cast<int>(d.k);
  // One row may have any stride; the copy engine wants a multiple of 16 bytes all the same.
  const int64_t a_stride = d.m == 1 ? (d.k + 7) / 8 * 8 : a.stride;
  launch_wgmma(p, a.data, a_stride * 2, a.type, c,
               static_cast<uint8_t*>(args.workspace) + activation_bytes(d), stream);
}

void load(const GemmDesc& d, const KernelConfig& config, Stream stream) {
  launch(without_memory(d), config, stream);
}

}  // namespace

const GemmImpl kWgmmaGemm = {.name = "sm90_fp4_wgmma_gemm",
                             .can_implement = can_implement,
                             .launch = launch,
                             .candidates = candidates,
                             .estimate_us = estimate_us,
                             .workspace_bytes = workspace_bytes,
                             .load = load};

}  // namespace nibble::sm90
