// NVFP4 to bf16 by the MMAs that only sm_103 has: 96 of k at a time, 768 a tile.
#include "kernels/vendor/cutlass/adapter.cuh"

namespace nibble::cutlass_gemm {
namespace {

template <Tile kTile>
constexpr Kernel entry() {
  return Adapter<Family::kSm103, WeightFormat::kNvfp4, cutlass::bfloat16_t, kTile>::entry();
}

}  // namespace

std::span<const Kernel> sm103_nvfp4() {
  static constexpr Kernel kAll[] = {
      entry<Tile{.rows = 256, .tokens = 128, .k = 768, .cluster = 2}>(),
      entry<Tile{.rows = 256, .tokens = 256, .k = 768, .cluster = 2}>(),
  };
  return kAll;
}

}  // namespace nibble::cutlass_gemm
