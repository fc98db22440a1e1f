#include <algorithm>
#include <array>
#include <limits>

#include "base/launch.h"
#include "kernels/sm90/gemm_decode.cuh"
#include "kernels/sm90/gemm_decode.h"

namespace nibble::sm90 {
namespace {

constexpr int kMaxCluster = 8;

using DecodeKernel = void (*)(DecodeParams);

// More than 512 threads leave a thread fewer than 128 registers: enough for one row tile.
constexpr int max_threads(int row_tiles) { return row_tiles == 1 ? 640 : 512; }
// With 64 registers two blocks fit a multiprocessor, and the next kernel's starts beside the end of
// this one (PDL: 1 % of m = 1).
constexpr int kSmallBound = 1024;

struct Variant {
  DecodeConfig config;
  DecodeKernel bf16, f16;
};
template <int kTokenTiles, int kRowTiles, int kStages>
constexpr Variant variant() {
  constexpr int kThreads = kTokenTiles * kRowTiles == 1 ? kSmallBound : max_threads(kRowTiles);
  return {{kTokenTiles * 8, kRowTiles, kStages, 0, 0, 0},
          decode_gemm<kTokenTiles, kRowTiles, kStages, kThreads, Wide::kBF16>,
          decode_gemm<kTokenTiles, kRowTiles, kStages, kThreads, Wide::kF16>};
}
// Of more tokens a pass (32, 64), all took 1.7 to 2.7 times as long as the wgmma GEMM.
const Variant kVariants[] = {
    variant<1, 1, 4>(), variant<1, 1, 5>(), variant<1, 2, 3>(),
    variant<1, 2, 4>(), variant<2, 1, 4>(), variant<2, 2, 3>(),
};

const Variant* find(const DecodeConfig& c) {
  for (const Variant& v : kVariants) {
    if (v.config.tokens == c.tokens && v.config.row_tiles == c.row_tiles &&
        v.config.stages == c.stages) {
      return &v;
    }
  }
  return nullptr;
}

constexpr int kPad = 16;    // bytes behind each row of activations, against bank conflicts
constexpr int kLine = 128;  // of shared memory
int whole_lines(int bytes) { return (bytes + kLine - 1) / kLine * kLine; }

int own_tiles(const DecodeConfig& c) { return c.warps_n * c.row_tiles / c.cluster; }

// Where things lie in a block's shared memory, in bytes. The ring lies at a multiple of 128: 16
// bytes beside one, each copy of a line is two writes, and a GEMM takes a fifth longer.
struct Shared {
  int activation_stride, ring, sums, bytes;
};
Shared shared_of(const DecodeConfig& c, int64_t m, int64_t k) {
  const auto blocks = static_cast<int>((k_blocks(k) + c.cluster - 1) / c.cluster);
  const int slots = c.warps_k * c.cluster;
  Shared at;
  at.activation_stride = blocks * kBlockK * 2 + kPad;
  at.ring = kActivationsAt + whole_lines(static_cast<int>(m) * at.activation_stride);
  at.sums = at.ring + c.warps_n * c.warps_k * c.stages * c.row_tiles * kBlockBytes;
  at.bytes = at.sums + (slots == 1 ? 0 : slots * own_tiles(c) * (c.tokens / 8) * 512);
  return at;
}

// Steps whose activations come before the weights: a quarter (a half is 0.5 % slower at m = 8, all
// of them 1 %), or all where that is not worth a barrier. The rest is there when the ring has
// turned.
constexpr int kFirstShare = 4;
constexpr int64_t kFewBytes = 16 << 10;
int first_steps(const DecodeConfig& c, int64_t m, int64_t k) {
  const int64_t slice = k_blocks(k) / c.cluster, steps = slice / c.warps_k;
  const int64_t first = std::max<int64_t>(c.stages - 1, (steps + kFirstShare - 1) / kFirstShare);
  const bool all = first >= steps || m * slice * kBlockK * 2 < kFewBytes;
  return static_cast<int>(all ? steps + 1 : first);
}

bool is_power_of_two(int x) { return x > 0 && (x & (x - 1)) == 0; }
int log2_of(int power) { return __builtin_ctz(static_cast<unsigned>(power)); }

}  // namespace

std::span<const DecodeConfig> decode_kernels() {
  static const auto configs = [] {
    std::array<DecodeConfig, std::size(kVariants)> all;
    for (size_t i = 0; i < all.size(); ++i) all[i] = kVariants[i].config;
    return all;
  }();
  return configs;
}

bool decode_fits(const DecodeConfig& c, int64_t m, int64_t n, int64_t k) {
  return m > 0 && m <= c.tokens && find(c) != nullptr && c.warps_n > 0 &&
         is_power_of_two(c.warps_k) && is_power_of_two(c.cluster) &&
         c.warps_n * c.warps_k * 32 <= max_threads(c.row_tiles) &&
         c.warps_n * c.row_tiles <= kTailBytes / kBlockBytes && c.cluster <= kMaxCluster &&
         c.warps_n * c.row_tiles % c.cluster == 0 &&
         row_blocks(n) * kBlockBytes <= std::numeric_limits<int>::max() &&
         k_blocks(k) >= int64_t{c.cluster} * c.warps_k && n > 0 &&
         shared_of(c, m, k).bytes <= kSharedLimit;
}

void launch_decode(const DecodeParams& params, const DecodeConfig& c, Wide type, Stream stream) {
  DecodeParams p = params;
  const int rows = c.warps_n * c.row_tiles * kBlockRows;
  const Shared at = shared_of(c, p.m, p.k);
  p.k_stride = static_cast<int>(row_blocks(p.n)) * kBlockBytes;
  p.all_k = static_cast<int>(k_blocks(p.k));
  p.warps_n = c.warps_n;
  p.warps_k_log2 = log2_of(c.warps_k);
  p.cluster_log2 = log2_of(c.cluster);
  p.ring_at = at.ring;
  p.sums_at = at.sums;
  p.activation_stride = at.activation_stride;
  p.tokens_log2 = 0;
  while (1 << p.tokens_log2 < p.m) ++p.tokens_log2;
  p.first_steps = stream.pdl ? p.all_k : first_steps(c, p.m, p.k);
  p.own_tiles = own_tiles(c);
  p.weights_first = stream.pdl;
  const auto tiles = static_cast<unsigned>((int64_t{p.n} + rows - 1) / rows);
  const Variant& v = *find(c);
  cuda::launch({.grid = tiles * static_cast<unsigned>(c.cluster),
                .block = {32, static_cast<unsigned>(c.warps_n * c.warps_k)},
                .shared_bytes = static_cast<size_t>(at.bytes),
                .cluster = static_cast<unsigned>(c.cluster),
                .pdl = stream.pdl,
                .stream = stream},
               "sm90_fp4_decode_gemm", type == Wide::kF16 ? v.f16 : v.bf16, p);
}

}  // namespace nibble::sm90
