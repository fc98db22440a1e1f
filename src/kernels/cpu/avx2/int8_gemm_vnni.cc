// With AVX-VNNI: vpdpbusd sums four products into 32 bits.
#include "kernels/cpu/avx2/int8_gemm.h"

namespace nibble::cpu::avx2 {
namespace {

// -12 times the sum of a block.
int32_t start_of(__m128i codes) {
  __m128i sum = _mm_madd_epi16(_mm_maddubs_epi16(_mm_set1_epi8(1), codes), _mm_set1_epi16(-12));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xB1)));
}

__m256i add_products(__m256i sum, __m256i weights, __m256i activations) {
  return _mm256_dpbusd_avx_epi32(sum, weights, activations);
}

void pack(const float* a, int64_t k, int token, int tokens, uint8_t* group) {
  pack_scaled(a, k, token, tokens, 1.0f, group);
}

__m256 to_float(__m256i sum) { return _mm256_cvtepi32_ps(sum); }

struct PlainEnd {
  static constexpr bool kScales = false;
  static __m256 to_float(__m256i sum, const float*) { return avx2::to_float(sum); }
};

void multiply(const TileBlock& block) { multiply_panels<PlainEnd>(block, 1.0f); }

void widen(WeightFormat format, const uint8_t* tile, int64_t k, uint8_t* panel) {
  if (format == WeightFormat::kNvfp4) {
    return widen_tile<WeightFormat::kNvfp4>(tile, k, panel, widen_scales<WeightFormat::kNvfp4>);
  }
  widen_tile<WeightFormat::kMxfp4>(tile, k, panel, widen_scales<WeightFormat::kMxfp4>);
}

}  // namespace

const TileLoops kVnniInt8Tiles = {.max_tokens = 4,
                                  .best_up_to = 4,
                                  .max_tiles = 1,
                                  .k_multiple = kBlock,
                                  .a_bytes = sizeof(ActBlock),
                                  .panel_bytes = 0,
                                  .pack = pack,
                                  .widen = nullptr,
                                  .multiply = multiply_tiles};
const TileLoops kVnniInt8Panels = {.max_tokens = 3,
                                   .max_tiles = 1,
                                   .k_multiple = kBlock,
                                   .a_bytes = sizeof(ActBlock),
                                   .panel_bytes = sizeof(PanelBlock),
                                   .pack = pack,
                                   .widen = widen,
                                   .multiply = multiply};

}  // namespace nibble::cpu::avx2
