// NVFP4 and MXFP4 on sm_120 and sm_121.
#include "kernels/vendor/cutlass/adapter.cuh"

namespace nibble::cutlass_gemm {
namespace {

template <WeightFormat kFormat, class Element, Tile kTile>
constexpr Kernel entry() {
  return Adapter<Family::kSm120, kFormat, Element, kTile>::entry();
}

constexpr Tile kSmall = {.rows = 128, .tokens = 32, .k = 256, .splits = true};
constexpr Tile kLarge = {.rows = 128, .tokens = 128, .k = 128};

}  // namespace

std::span<const Kernel> sm120_all() {
  static constexpr Kernel kAll[] = {
      entry<WeightFormat::kNvfp4, cutlass::bfloat16_t, kSmall>(),
      entry<WeightFormat::kNvfp4, cutlass::bfloat16_t, kLarge>(),
      entry<WeightFormat::kMxfp4, cutlass::bfloat16_t, kLarge>(),
  };
  return kAll;
}

}  // namespace nibble::cutlass_gemm
