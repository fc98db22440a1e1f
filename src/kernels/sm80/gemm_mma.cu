#include <array>

#include "base/launch.h"
#include "kernels/sm80/gemm_mma.cuh"
#include "kernels/sm80/gemm_mma.h"

namespace nibble::sm80 {
namespace {

// Above this, chips like sm_86 and sm_120 have no room.
constexpr int kSharedLimit = 99 * 1024;

using MmaKernel = void (*)(MmaParams);

struct Variant {
  MmaConfig config;
  MmaKernel kernels[2];  // bf16, fp16
};
template <int kTokenTiles, int kRowTiles, int kStages, int kWarpsN, int kWarpsK>
constexpr Variant variant() {
  static_assert(MmaShared(kTokenTiles * 8, kRowTiles, kStages, kWarpsN, kWarpsK).bytes <=
                kSharedLimit);
  static_assert(kWarpsN * kWarpsK * 32 <= kMaxThreads);
  return {{kTokenTiles * 8, kRowTiles, kStages, kWarpsN, kWarpsK},
          {mma_gemm<sm90::Wide::kBF16, kTokenTiles, kRowTiles, kStages>,
           mma_gemm<sm90::Wide::kF16, kTokenTiles, kRowTiles, kStages>}};
}
const Variant kVariants[] = {
    variant<1, 1, 3, 1, 8>(), variant<1, 1, 3, 2, 4>(), variant<1, 1, 3, 4, 2>(),
    variant<2, 1, 3, 1, 4>(), variant<2, 1, 3, 2, 4>(), variant<2, 1, 3, 4, 2>(),
    variant<4, 2, 3, 2, 2>(), variant<4, 2, 3, 4, 1>(), variant<4, 2, 3, 8, 1>(),
    variant<8, 2, 3, 2, 1>(), variant<8, 2, 3, 4, 1>(),
};

}  // namespace

std::span<const MmaConfig> mma_configs() {
  static const auto configs = [] {
    std::array<MmaConfig, std::size(kVariants)> all;
    for (size_t i = 0; i < all.size(); ++i) all[i] = kVariants[i].config;
    return all;
  }();
  return configs;
}

void launch_mma(const MmaParams& params, const MmaConfig& c, sm90::Wide type, Stream stream) {
  const Variant* variant = kVariants;
  while (variant->config != c) ++variant;
  MmaParams p = params;
  p.warps_n = c.warps_n;
  p.warps_k = c.warps_k;
  const int rows = c.warps_n * c.row_tiles * sm90::kBlockRows;
  const MmaShared at(c.tokens, c.row_tiles, c.stages, c.warps_n, c.warps_k);
  cuda::launch({.grid = dim3(static_cast<unsigned>((p.m + c.tokens - 1) / c.tokens),
                             static_cast<unsigned>((p.n + rows - 1) / rows)),
                .block = static_cast<unsigned>(c.warps_n * c.warps_k * 32),
                .shared_bytes = static_cast<size_t>(at.bytes),
                .stream = stream},
               "sm80_fp4_mma_gemm", variant->kernels[type == sm90::Wide::kF16 ? 1 : 0], p);
}

}  // namespace nibble::sm80
