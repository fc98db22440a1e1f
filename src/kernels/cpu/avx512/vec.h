// Sixteen floats: what the templates of vector/ are written with.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace nibble::cpu {
namespace {

struct Vec {
  using F = __m512;
  using I = __m512i;
  static constexpr int kWidth = 16;
  static constexpr int kRegisters = 32;

  static F zero() { return _mm512_setzero_ps(); }
  static F set1(float x) { return _mm512_set1_ps(x); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, F x) { _mm512_storeu_ps(p, x); }
  static __mmask16 mask(int64_t count) {  // the first `count` lanes
    return static_cast<__mmask16>(count >= 16 ? 0xFFFF : (1 << count) - 1);
  }
  static F load_some(const float* p, int64_t count) {
    return _mm512_maskz_loadu_ps(mask(count), p);
  }
  static void store_some(float* p, int64_t count, F x) { _mm512_mask_storeu_ps(p, mask(count), x); }
  // x where the lane is one of the first `count`, else y.
  static F first(int64_t count, F x, F y) { return _mm512_mask_blend_ps(mask(count), y, x); }

  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }  // b where one is NaN
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  // A bit per lane.
  static uint32_t at_least(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }

  static float sum(F x) { return _mm512_reduce_add_ps(x); }
  static float largest(F x) { return _mm512_reduce_max_ps(x); }
  // The sums of four vectors.
  static __m128 sum4(F a, F b, F c, F d) {
    const __m256 x =
        _mm256_hadd_ps(_mm256_hadd_ps(fold(a), fold(b)), _mm256_hadd_ps(fold(c), fold(d)));
    return _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  }

  static F round(F x) {
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  // x * 2^n for integral n in [-126, 127].
  static F scale(F x, F n) {
    const I bits = _mm512_slli_epi32(_mm512_cvtps_epi32(n), 23);
    return _mm512_mul_ps(
        x, _mm512_castsi512_ps(_mm512_add_epi32(bits, _mm512_set1_epi32(0x3F800000))));
  }
  static I to_int(F x) { return _mm512_cvtps_epi32(x); }
  // x with its sign flipped where bit `bit` of n is set.
  template <int bit>
  static F flip_sign(F x, I n) {
    const I sign = _mm512_and_si512(_mm512_slli_epi32(n, 31 - bit), _mm512_set1_epi32(INT32_MIN));
    return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(x), sign));
  }
  // y where bit 0 of n is set, else x.
  static F select_odd(F x, F y, I n) {
    return _mm512_mask_blend_ps(_mm512_test_epi32_mask(n, _mm512_set1_epi32(1)), x, y);
  }

  // kWidth stored values to fp32. e4m3: times 2^-120; NaN is not kept.
  static F from_bf16(const uint8_t* p) {
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
  }
  static F from_fp16(const uint8_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static F from_e4m3(const uint8_t* p) {
    // The bits in fp32's place; their sign is spread over those above.
    const I x = _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    const I bits =
        _mm512_and_si512(_mm512_slli_epi32(x, 20), _mm512_set1_epi32(static_cast<int>(0x87F00000)));
    return _mm512_castsi512_ps(bits);
  }

  // Lane r: e2m1 of nibble kNibble of word r.
  template <int kNibble>
  static F from_e2m1(I words) {
    const F table = _mm512_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f,  //
                                   -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f);
    return _mm512_permutexvar_ps(_mm512_srli_epi32(words, 4 * kNibble), table);
  }
  static I load_words(const uint8_t* p) { return _mm512_loadu_si512(p); }
  // kWidth block scales.
  static F nvfp4_scales(const uint8_t* p) {
    const I s = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm512_mul_ps(_mm512_castsi512_ps(_mm512_slli_epi32(s, 20)), _mm512_set1_ps(0x1p120f));
  }
  static F mxfp4_scales(const uint8_t* p) {
    const I s = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm512_castsi512_ps(
        _mm512_max_epi32(_mm512_slli_epi32(s, 23), _mm512_set1_epi32(0x00400000)));
  }
  // What dot products over tiles are made of (vector/tile_dot.h).
  static I table(const uint8_t (&bytes)[16]) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
  }
  static I lookup(I table, I codes) { return _mm512_shuffle_epi8(table, codes); }
  static I low_nibbles(I x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
  static I high_nibbles(I x) { return low_nibbles(_mm512_srli_epi16(x, 4)); }
  // Within each 128 bits: bytes of a and b in turns, of the lower eight or the upper eight.
  static I zip_low(I a, I b) { return _mm512_unpacklo_epi8(a, b); }
  static I zip_high(I a, I b) { return _mm512_unpackhi_epi8(a, b); }
  static F low_bf16(I x) { return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)); }
  static F high_bf16(I x) {
    return _mm512_castsi512_ps(
        _mm512_and_si512(x, _mm512_set1_epi32(static_cast<int>(0xFFFF0000))));
  }
  // Eight bytes in every 64-bit lane.
  static F set_pair(const uint8_t* p) {
    double pair;
    __builtin_memcpy(&pair, p, sizeof(pair));
    return _mm512_castpd_ps(_mm512_set1_pd(pair));
  }
  // Within each 128 bits: elements 0, 0, 1, 1 or 2, 2, 3, 3.
  static F twice_low(F x) { return _mm512_unpacklo_ps(x, x); }
  static F twice_high(F x) { return _mm512_unpackhi_ps(x, x); }
  // Within each 128 bits: a0 + a1, a2 + a3, b0 + b1, b2 + b3.
  static F sum_pairs(F a, F b) {
    return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xDD));
  }
  // Rounded to nearest even; NaN stays.
  static F round_to_bf16(F x) {
    const I bits = _mm512_castps_si512(x);
    const I odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const I sum = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), odd);
    const I rounded = _mm512_and_si512(sum, _mm512_set1_epi32(static_cast<int>(0xFFFF0000)));
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q),
                                _mm512_castsi512_ps(rounded), x);
  }

 private:
  static __m256 fold(F x) {
    const __m256 high = _mm512_extractf32x8_ps(x, 1);
    return _mm256_add_ps(_mm512_castps512_ps256(x), high);
  }
};

}  // namespace
}  // namespace nibble::cpu
