// NVFP4 to fp32 and MXFP4 to bf16 on sm_100 and sm_103.
#include "kernels/vendor/cutlass/adapter.cuh"

namespace nibble::cutlass_gemm {
namespace {

template <WeightFormat kFormat, class Element, Tile kTile>
constexpr Kernel entry() {
  return Adapter<Family::kSm100, kFormat, Element, kTile>::entry();
}

constexpr Tile kSmall = {.rows = 128, .tokens = 64, .k = 256, .splits = true};
constexpr Tile kLarge = {.rows = 256, .tokens = 128, .k = 256, .cluster = 2};

}  // namespace

std::span<const Kernel> sm100_others() {
  static constexpr Kernel kAll[] = {
      entry<WeightFormat::kNvfp4, float, kSmall>(),
      entry<WeightFormat::kMxfp4, cutlass::bfloat16_t, kSmall>(),
      entry<WeightFormat::kMxfp4, cutlass::bfloat16_t, kLarge>(),
  };
  return kAll;
}

}  // namespace nibble::cutlass_gemm
