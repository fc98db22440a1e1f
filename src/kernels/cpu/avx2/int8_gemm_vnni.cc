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

void pack(const float* a, int64_t k, int token, int tokens, uint8_t* group) {
  ActBlock* out = reinterpret_cast<ActBlock*>(group) + token;
  for (int64_t i = 0; i < k; i += kBlock, out += tokens) {
    __m128i codes;
    out->scale = quantize(a + i, codes);
    out->start = start_of(codes);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out->codes), codes);
  }
}

__m256 block_sum(const __m256i* step, const ActBlock& a) {
  __m256i sum = broadcast(&a.start);
  NIBBLE_UNROLL
  for (int i = 0; i < 4; ++i) {
    sum = _mm256_dpbusd_avx_epi32(sum, step[i], broadcast(a.codes + 4 * i));
  }
  return _mm256_cvtepi32_ps(sum);
}

struct Loop {
  static constexpr bool kScales = false;

  template <int kTokens>
  static void sums(const PanelBlock& w, const ActBlock* a, __m256 (&out)[2][kTokens]) {
    __m256i sum[2][kTokens];
    NIBBLE_UNROLL
    for (int t = 0; t < kTokens; ++t) sum[0][t] = sum[1][t] = broadcast(&a[t].start);
    NIBBLE_UNROLL
    for (int i = 0; i < 4; ++i) {
      const __m256i w0 = load(w.codes[i]);
      const __m256i w1 = load(w.codes[i] + 32);
      NIBBLE_UNROLL
      for (int t = 0; t < kTokens; ++t) {
        const __m256i x = broadcast(a[t].codes + 4 * i);
        sum[0][t] = _mm256_dpbusd_avx_epi32(sum[0][t], w0, x);
        sum[1][t] = _mm256_dpbusd_avx_epi32(sum[1][t], w1, x);
      }
    }
    NIBBLE_UNROLL
    for (int h = 0; h < 2; ++h) {
      NIBBLE_UNROLL
      for (int t = 0; t < kTokens; ++t) out[h][t] = _mm256_cvtepi32_ps(sum[h][t]);
    }
  }
};

void multiply(const TileBlock& block) { multiply_panels<Loop>(block, 1.0f); }

void widen(WeightFormat format, const uint8_t* tile, int64_t k, uint8_t* panel) {
  if (format == WeightFormat::kNvfp4) {
    return widen_tile<WeightFormat::kNvfp4>(tile, k, panel, widen_scales<WeightFormat::kNvfp4>);
  }
  widen_tile<WeightFormat::kMxfp4>(tile, k, panel, widen_scales<WeightFormat::kMxfp4>);
}

}  // namespace

const TileLoops kVnniInt8Tiles = {.max_tokens = 4,
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
