// Eight floats: what the templates of vector/ are written with.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace nibble::cpu {
namespace {

struct Vec {
  using F = __m256;
  using I = __m256i;
  static constexpr int kWidth = 8;
  static constexpr int kRegisters = 16;

  static F zero() { return _mm256_setzero_ps(); }
  static F set1(float x) { return _mm256_set1_ps(x); }
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, F x) { _mm256_storeu_ps(p, x); }
  static I mask(int64_t count) {  // the first `count` lanes
    const I lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count < 8 ? count : 8)), lanes);
  }
  // Whole vectors are the rule, and Zen 3 takes a dozen cycles for a masked store.
  static F load_some(const float* p, int64_t count) {
    return count >= kWidth ? load(p) : _mm256_maskload_ps(p, mask(count));
  }
  static void store_some(float* p, int64_t count, F x) {
    if (count >= kWidth) return store(p, x);
    _mm256_maskstore_ps(p, mask(count), x);
  }
  // x where the lane is one of the first `count`, else y.
  static F first(int64_t count, F x, F y) {
    if (count >= kWidth) return x;
    return _mm256_blendv_ps(y, x, _mm256_castsi256_ps(mask(count)));
  }

  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F div(F a, F b) { return _mm256_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }  // b where one is NaN
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  // A bit per lane.
  static uint32_t at_least(F a, F b) {
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GE_OQ)));
  }

  static float sum(F x) {
    __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_add_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
  }
  static float largest(F x) {
    __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_max_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
  }
  // The sums of four vectors.
  static __m128 sum4(F a, F b, F c, F d) {
    const F x = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  }

  static F round(F x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  // x * 2^n for integral n in [-126, 127].
  static F scale(F x, F n) {
    const I bits = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    return _mm256_mul_ps(
        x, _mm256_castsi256_ps(_mm256_add_epi32(bits, _mm256_set1_epi32(0x3F800000))));
  }
  static I to_int(F x) { return _mm256_cvtps_epi32(x); }
  // x with its sign flipped where bit `bit` of n is set.
  template <int bit>
  static F flip_sign(F x, I n) {
    const I sign = _mm256_and_si256(_mm256_slli_epi32(n, 31 - bit), _mm256_set1_epi32(INT32_MIN));
    return _mm256_xor_ps(x, _mm256_castsi256_ps(sign));
  }
  // y where bit 0 of n is set, else x.
  static F select_odd(F x, F y, I n) {
    return _mm256_blendv_ps(x, y, _mm256_castsi256_ps(_mm256_slli_epi32(n, 31)));
  }

  // kWidth stored values to fp32. e4m3: times 2^-120; NaN is not kept.
  static F from_bf16(const uint8_t* p) {
    const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
  }
  static F from_fp16(const uint8_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static F from_e4m3(const uint8_t* p) {
    // The bits in fp32's place; their sign is spread over those above.
    const I x = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
    const I bits =
        _mm256_and_si256(_mm256_slli_epi32(x, 20), _mm256_set1_epi32(static_cast<int>(0x87F00000)));
    return _mm256_castsi256_ps(bits);
  }

  // Lane r: e2m1 of nibble kNibble of word r.
  template <int kNibble>
  static F from_e2m1(I words) {
    const F table = _mm256_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f);
    const F magnitude = _mm256_permutevar8x32_ps(table, _mm256_srli_epi32(words, 4 * kNibble));
    return flip_sign<4 * kNibble + 3>(magnitude, words);
  }
  static I load_words(const uint8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const I*>(p));
  }
  // kWidth block scales.
  static F nvfp4_scales(const uint8_t* p) {
    const I s = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
    return _mm256_mul_ps(_mm256_castsi256_ps(_mm256_slli_epi32(s, 20)), _mm256_set1_ps(0x1p120f));
  }
  static F mxfp4_scales(const uint8_t* p) {
    const I s = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
    return _mm256_castsi256_ps(
        _mm256_max_epi32(_mm256_slli_epi32(s, 23), _mm256_set1_epi32(0x00400000)));
  }
  // What dot products over tiles are made of (vector/tile_dot.h).
  static I table(const uint8_t (&bytes)[16]) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
  }
  static I lookup(I table, I codes) { return _mm256_shuffle_epi8(table, codes); }
  static I low_nibbles(I x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
  static I high_nibbles(I x) { return low_nibbles(_mm256_srli_epi16(x, 4)); }
  // Within each 128 bits: bytes of a and b in turns, of the lower eight or the upper eight.
  static I zip_low(I a, I b) { return _mm256_unpacklo_epi8(a, b); }
  static I zip_high(I a, I b) { return _mm256_unpackhi_epi8(a, b); }
  static F low_bf16(I x) { return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16)); }
  static F high_bf16(I x) {
    return _mm256_castsi256_ps(
        _mm256_and_si256(x, _mm256_set1_epi32(static_cast<int>(0xFFFF0000))));
  }
  // Eight bytes in every 64-bit lane.
  static F set_pair(const uint8_t* p) {
    double pair;
    __builtin_memcpy(&pair, p, sizeof(pair));
    return _mm256_castpd_ps(_mm256_set1_pd(pair));
  }
  // Within each 128 bits: elements 0, 0, 1, 1 or 2, 2, 3, 3.
  static F twice_low(F x) { return _mm256_unpacklo_ps(x, x); }
  static F twice_high(F x) { return _mm256_unpackhi_ps(x, x); }
  // Within each 128 bits: a0 + a1, a2 + a3, b0 + b1, b2 + b3.
  static F sum_pairs(F a, F b) { return _mm256_hadd_ps(a, b); }
  // Rounded to nearest even; NaN stays.
  static F round_to_bf16(F x) {
    const I bits = _mm256_castps_si256(x);
    const I odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const I sum = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd);
    const I rounded = _mm256_and_si256(sum, _mm256_set1_epi32(static_cast<int>(0xFFFF0000)));
    return _mm256_blendv_ps(_mm256_castsi256_ps(rounded), x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  }
};

}  // namespace
}  // namespace nibble::cpu
