#include "kernels/sm90/gemm_wgmma_cost.h"

#include <algorithm>
#include <cmath>

#include "kernels/sm90/blocks.h"

namespace nibble::sm90 {
namespace {

constexpr int kResidentClusters[] = {132, 66, 38, 30, 22};  // on an H200
constexpr int kH200Sms = 132;

// By tools/fit_sm90.py, with the decode GEMM's, from timings of bench_sm90_gemm on an H200 (41
// layers, m = 1 to 8192; bench/data). A step's parts add up as the root of squares.
constexpr double kFixedUs = 2.22;           // launch, first loads, output,
constexpr double kFirst = 1.02;             // of the time that all blocks' first weights take,
constexpr double kClusterUs = 0.323;        // and blocks that meet
constexpr double kNextTileUs = 0.862;       // nothing is multiplied while a tile is written out
constexpr double kMorePartsUs = 0.0526;     // the sums of each part of a shared tile beyond two,
constexpr double kReduceNs = 13.1;          // and a token of 64 rows that another part sums
constexpr double kStreamUs = 1.06;          // a block's sums that come through L2,
constexpr double kStreamNs = 12.5;          // a token of 64 rows of them
constexpr double kMacsPerNs = 3770.0;       // of a multiprocessor's tensor cores,
constexpr double kPowerMacsPerNs = 3850.0;  // and where all of them are at the card's power
constexpr double kWidenNs = 112.0;          // 64 rows x 128 of k, with reading them,
constexpr double kPowerWidenNs = 57.2;      // and at the card's power: why more tokens a tile win
constexpr double kPairPower = 0.961;        // of two blocks that share activations
constexpr double kStepNs = 180.0;           // 128 of k, however few rows,
constexpr double kPairStepNs = 218.0;       // and where two blocks wait for each other
constexpr double kInTurn = 1.15;  // two k groups: twice the activations for as many products
constexpr double kWide = 0.0873;  // more of the time at 256 tokens: few registers to hide reading
constexpr double kL2Bytes = 44.7e6;

double weight_bytes(const GemmDesc& d) {
  return static_cast<double>(cuda::all_block_bytes(d.n, d.k));
}
double input_bytes(const GemmDesc& d) {
  return 2.0 * static_cast<double>(d.m) * static_cast<double>(d.k);
}
double bytes_per_ns(const DeviceInfo& device) { return device.bandwidth_gbps * kDramEfficiency; }

// What runs side by side, but holds the others up where it takes as long: the fourth root of fourth
// powers. (By the longest alone, what memory limits was 5 to 10 % off.)
double beside(double a, double b, double c) {
  const auto fourth = [](double x) { return (x * x) * (x * x); };
  return std::sqrt(std::sqrt(fourth(a) + fourth(b) + fourth(c)));
}

bool is_pair(const WgmmaConfig& c) { return c.cluster != c.split; }

// A block's step of 128 of k, of so many groups of rows.
double step_ns(const WgmmaConfig& c, int groups) {
  const double macs = static_cast<double>(groups * kGroupRows) * c.tokens * kBlockK;
  const double multiply = macs / kMacsPerNs * (c.k_groups > 1 ? kInTurn : 1.0);
  const double step = std::hypot(multiply, groups * kWidenNs, is_pair(c) ? kPairStepNs : kStepNs);
  return step * (1.0 + kWide * std::sqrt(std::max(0, c.tokens - 128) / 128.0));
}

// All tiles of one kind.
struct Share {
  int64_t tiles = 0, token_tiles = 0, row_tiles = 0;
  double waves = 0.0;        // of the blocks that have them
  double multiply_ns = 0.0;  // as fast as blocks can,
  double power_ns = 0.0;     // and at the card's power, however the work is shared out
};
Share share_of(const WgmmaConfig& kind, const GemmDesc& d, int64_t m, int workers,
               const DeviceInfo& device) {
  const WgmmaTiles cut = wgmma_tiles(kind, m, d.n, workers);
  const auto steps =
      static_cast<double>(ceil_div(ceil_div(k_blocks(d.k), kind.split), kind.k_groups));
  Share share = {.tiles = cut.tiles(), .token_tiles = cut.token_tiles, .row_tiles = cut.row_tiles};
  const double waves = static_cast<double>(cut.tiles()) / workers;
  share.waves = kind.stream ? waves : std::ceil(waves);
  share.multiply_ns = share.waves * steps * step_ns(kind, kind.groups * kind.k_groups);
  if (cut.lower()) {
    const int low = cut.low_groups * kind.split / kind.cluster;
    share.multiply_ns -= steps * (step_ns(kind, kind.groups) - step_ns(kind, low));
  }
  const auto groups = static_cast<double>(ceil_div(d.n, kGroupRows) * k_blocks(d.k));
  const double macs = static_cast<double>(kind.tokens) * d.n * d.k;
  share.power_ns = cut.token_tiles * (macs / kPowerMacsPerNs + groups * kPowerWidenNs) /
                   device.num_sms * (is_pair(kind) ? kPairPower : 1.0);
  return share;
}

// Blocks that take whole tiles are at the same k together, and memory is read once for all of them.
// Those of a cut stream are each at another: what the L2 has no room for is read for every tile.
double missed_ns(const Share& stream, const GemmDesc& d, const DeviceInfo& device) {
  const double weights = weight_bytes(d), input = input_bytes(d);
  const double copied = input * static_cast<double>(stream.row_tiles) +
                        weights * static_cast<double>(stream.token_tiles);
  const double missed = std::max(0.0, 1.0 - kL2Bytes / (weights + input));
  return missed * copied / bytes_per_ns(device);
}

}  // namespace

int resident_clusters(int cluster, const DeviceInfo& device) {
  return std::max(1, kResidentClusters[cluster - 1] * device.num_sms / kH200Sms);
}

double wgmma_us(const WgmmaConfig& c, const GemmDesc& d, const DeviceInfo& device) {
  const int clusters = resident_clusters(c.cluster, device);
  Share own, rest;
  if (c.mixed()) {
    const WgmmaMix mix = wgmma_mix(c, d.m, d.n, device.num_sms);
    own = share_of(c, d, mix.m, mix.workers, device);
    if (mix.rest_workers > 0) {
      rest = share_of(wgmma_rest(c), d, d.m - mix.m, mix.rest_workers, device);
    }
  } else {
    own = share_of(c, d, d.m, clusters, device);
  }
  const auto tiles = static_cast<double>(own.tiles + rest.tiles);
  const double multiply =
      std::max({own.multiply_ns, rest.multiply_ns, own.power_ns + rest.power_ns});
  const double missed = c.stream ? missed_ns(own, d, device) : 0.0;
  const double written = 2.0 * static_cast<double>(d.m) * static_cast<double>(d.n);
  const double memory = (weight_bytes(d) + input_bytes(d) + written) / bytes_per_ns(device);
  const double loop = beside(multiply, missed, memory);
  const double blocks = std::min<double>(device.num_sms, tiles * c.cluster);
  const double first = blocks * c.groups * c.k_groups * kGroupBlocks * kBlockBytes;

  double us = kFixedUs + 1e-3 * (loop + kFirst * first / bytes_per_ns(device));
  us += kNextTileUs * std::max(0.0, std::max(own.waves, rest.waves) - 1.0);
  if (c.cluster > 1) us += kClusterUs;
  // A tile's sums, in the units that they are added up in.
  const int unit = unit_tokens(c.tokens);
  const int64_t used = ceil_div(ceil_div(d.m, own.token_tiles), unit) * unit;
  const auto sums = static_cast<double>(c.groups * std::min<int64_t>(c.tokens, used));
  if (c.stream) us += std::max(1.0, clusters / tiles) * kStreamUs + 1e-3 * kStreamNs * sums;
  if (const int parts = c.split * c.k_groups; parts > 1) {
    us += kMorePartsUs * (parts - 2) + 1e-3 * kReduceNs * sums * (parts - 1) / parts;
  }
  return us;
}

}  // namespace nibble::sm90
