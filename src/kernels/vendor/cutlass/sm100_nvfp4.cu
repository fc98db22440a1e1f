// NVFP4 to bf16 on sm_100 and sm_103.
#include "kernels/vendor/cutlass/adapter.cuh"

namespace nibble::cutlass_gemm {
namespace {

template <Tile kTile>
constexpr Kernel entry() {
  return Adapter<Family::kSm100, WeightFormat::kNvfp4, cutlass::bfloat16_t, kTile>::entry();
}

}  // namespace

std::span<const Kernel> sm100_nvfp4() {
  static constexpr Kernel kAll[] = {
      entry<Tile{.rows = 128, .tokens = 64, .k = 256, .splits = true}>(),
      entry<Tile{.rows = 128, .tokens = 128, .k = 256}>(),
      entry<Tile{.rows = 256, .tokens = 128, .k = 256, .cluster = 2}>(),
      entry<Tile{.rows = 256, .tokens = 256, .k = 256, .cluster = 2}>(),
  };
  return kAll;
}

}  // namespace nibble::cutlass_gemm
