// Without VNNI: vpmaddubsw makes 16-bit sums of two products, vpmaddwd ends in 32 bits once a
// block.
#include "kernels/cpu/avx2/int8_gemm.h"

namespace nibble::cpu::avx2 {
namespace {

// sum + product, here and now: a compiler that is free to regroup these sums runs out of registers.
__m256i add_in_order(__m256i sum, __m256i product) {
  sum = _mm256_add_epi16(sum, product);
  asm("" : "+x"(sum));
  return sum;
}

// -12 times the sum over k % 4 in {0, 1} (low half) and {2, 3}: what either 16-bit lane sees.
int32_t start_of(__m128i codes) {
  __m128i pairs = _mm_maddubs_epi16(_mm_set1_epi8(1), codes);
  pairs = _mm_add_epi16(pairs, _mm_shuffle_epi32(pairs, 0x4E));
  pairs = _mm_add_epi16(pairs, _mm_shuffle_epi32(pairs, 0xB1));
  return _mm_cvtsi128_si32(_mm_mullo_epi16(pairs, _mm_set1_epi16(-12)));
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
    sum = add_in_order(sum, _mm256_maddubs_epi16(step[i], broadcast(a.codes + 4 * i)));
  }
  return _mm256_cvtepi32_ps(_mm256_madd_epi16(sum, _mm256_set1_epi16(1)));
}

template <int kTokens>
void panel_sums(const PanelBlock& w, const ActBlock* a, __m256 out[2][kTokens]) {
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
      sum[0][t] = add_in_order(sum[0][t], _mm256_maddubs_epi16(w0, x));
      sum[1][t] = add_in_order(sum[1][t], _mm256_maddubs_epi16(w1, x));
    }
  }
  const __m256i ones = _mm256_set1_epi16(1);
  NIBBLE_UNROLL
  for (int h = 0; h < 2; ++h) {
    NIBBLE_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      out[h][t] = _mm256_cvtepi32_ps(_mm256_madd_epi16(sum[h][t], ones));
    }
  }
}

}  // namespace

const TileLoops kInt8Tiles = {.max_tokens = 4,
                              .max_tiles = 1,
                              .k_multiple = kBlock,
                              .a_bytes = sizeof(ActBlock),
                              .panel_bytes = 0,
                              .pack = pack,
                              .widen = nullptr,
                              .multiply = multiply_tiles};
const TileLoops kInt8Panels = {.max_tokens = 3,
                               .max_tiles = 1,
                               .k_multiple = kBlock,
                               .a_bytes = sizeof(ActBlock),
                               .panel_bytes = sizeof(PanelBlock),
                               .pack = pack,
                               .widen = widen_panel,
                               .multiply = multiply_panels};

}  // namespace nibble::cpu::avx2
