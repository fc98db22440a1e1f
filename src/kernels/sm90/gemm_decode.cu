#include <array>

#include "base/launch.h"
#include "kernels/sm90/gemm_decode.cuh"
#include "kernels/sm90/gemm_decode.h"

namespace nibble::sm90 {
namespace {

constexpr int kSharedLimit = 227 * 1024;
constexpr int kMaxCluster = 8;

using DecodeKernel = void (*)(DecodeParams);

// More than 512 threads leave a thread fewer than 128 registers: enough for one row tile.
constexpr int max_threads(int row_tiles) { return row_tiles == 1 ? 640 : 512; }

struct Variant {
  DecodeConfig config;
  DecodeKernel kernel;
};
template <int kTokenTiles, int kRowTiles, int kStages>
constexpr Variant variant() {
  return {{kTokenTiles * 8, kRowTiles, kStages, 0, 0, 0},
          decode_gemm<kTokenTiles, kRowTiles, kStages, max_threads(kRowTiles)>};
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

DecodeShared shared_of(const DecodeConfig& c, int64_t m, int64_t k) {
  return {static_cast<int>(m), static_cast<int>(k), c.warps_n, c.warps_k,
          c.cluster,           c.row_tiles,         c.stages};
}

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
  return m > 0 && m <= c.tokens && find(c) != nullptr && c.warps_n > 0 && c.warps_k > 0 &&
         c.warps_n * c.warps_k * 32 <= max_threads(c.row_tiles) && c.cluster > 0 &&
         c.warps_n * c.row_tiles <= kTailBytes / kBlockBytes && c.cluster <= kMaxCluster &&
         c.warps_n * c.row_tiles * 2 % c.cluster == 0 &&
         k_blocks(k) >= int64_t{c.cluster} * c.warps_k && n > 0 &&
         shared_of(c, m, k).bytes <= kSharedLimit;
}

void launch_decode(const DecodeParams& params, const DecodeConfig& c, Stream stream) {
  DecodeParams p = params;
  p.warps_n = c.warps_n;
  p.warps_k = c.warps_k;
  p.cluster = c.cluster;
  p.weights_first = stream.pdl;
  const int64_t rows = int64_t{c.warps_n} * c.row_tiles * kBlockRows;
  const auto tiles = static_cast<unsigned>((p.n + rows - 1) / rows);
  cuda::launch({.grid = tiles * static_cast<unsigned>(c.cluster),
                .block = static_cast<unsigned>(c.warps_n * c.warps_k * 32),
                .shared_bytes = static_cast<size_t>(shared_of(c, p.m, p.k).bytes),
                .cluster = static_cast<unsigned>(c.cluster),
                .pdl = stream.pdl,
                .stream = stream},
               "sm90_bf16xnvfp4_decode_gemm", find(c)->kernel, p);
}

}  // namespace nibble::sm90
