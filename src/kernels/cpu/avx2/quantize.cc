// Two things of the portable quantizer in AVX2: amax and e2m1 codes of a block, where nearly all
// the time of round-to-nearest goes. The scales stay with formats/. Functions carry the instruction
// set themselves: with a compiler flag for the file, inline functions of shared headers would be
// compiled for AVX2 as well, and the linker might keep those for everyone.
#include <immintrin.h>

#include "formats/block_search.h"
#include "formats/mxfp4.h"
#include "formats/nvfp4.h"
#include "kernels/cpu/quantize.h"
#include "kernels/cpu/quantize_rows.h"

#define NIBBLE_AVX2 __attribute__((target("avx2,fma,f16c")))

namespace nibble::cpu {
namespace {

NIBBLE_AVX2 void widen(DType type, const uint16_t* src, int64_t count, float* out) {
  for (int64_t i = 0; i < count; i += 16) {  // counts are whole blocks
    for (int64_t j = i; j < i + 16; j += 8) {
      const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(src + j));
      const __m256 wide =
          type == DType::kBF16
              ? _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16))
              : _mm256_cvtph_ps(half);
      _mm256_storeu_ps(out + j, wide);
    }
  }
}

NIBBLE_AVX2 inline __m256 abs(__m256 v) {
  return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v);
}

// Largest magnitude per lane of 8 * N elements. maxps gives its second operand where one is NaN,
// so NaN does not count.
template <int N>
NIBBLE_AVX2 inline __m256 lane_amax(const float* x) {
  __m256 amax = _mm256_setzero_ps();
  for (int i = 0; i < N; ++i) amax = _mm256_max_ps(abs(_mm256_loadu_ps(x + 8 * i)), amax);
  return amax;
}

NIBBLE_AVX2 inline float reduce_max(__m256 v) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

// The amax of four blocks of 16.
NIBBLE_AVX2 inline void four_amax(const float* x, float* out) {
  const __m256 a = lane_amax<2>(x), b = lane_amax<2>(x + 16);
  const __m256 c = lane_amax<2>(x + 32), d = lane_amax<2>(x + 48);
  const __m256 ab = _mm256_max_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
  const __m256 cd = _mm256_max_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
  const __m256 all = _mm256_max_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xEE));
  _mm_storeu_ps(out, _mm_max_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
}

// e2m1 codes of x * factor, one in the low four bits of each lane. |y| plus 2^22 times its own power
// of two (at least 1) is a sum whose last place is e2m1's step there, so the addition rounds as
// e2m1 does, and its low bits count steps: 0..4 below 2, 2..4 below 4, 2..3 to 6. Two more per
// power of two make them codes.
NIBBLE_AVX2 inline __m256i e2m1_codes(const float* x, __m256 factor) {
  const __m256 y = _mm256_mul_ps(_mm256_loadu_ps(x), factor);
  const __m256 a = _mm256_min_ps(abs(y), _mm256_set1_ps(kE2m1Max));  // NaN gives 6
  const __m256i power = _mm256_and_si256(
      _mm256_castps_si256(_mm256_max_ps(a, _mm256_set1_ps(1.0f))), _mm256_set1_epi32(0x7F800000));
  const __m256 magic =
      _mm256_castsi256_ps(_mm256_add_epi32(power, _mm256_set1_epi32(22 << 23)));
  const __m256i sum = _mm256_castps_si256(_mm256_add_ps(a, magic));
  // power >> 22 is twice the biased exponent: 254 = -2 modulo 8 for a power of 1.
  const __m256i magnitude = _mm256_and_si256(
      _mm256_add_epi32(_mm256_add_epi32(sum, _mm256_srli_epi32(power, 22)), _mm256_set1_epi32(2)),
      _mm256_set1_epi32(7));
  const __m256 sign = _mm256_and_ps(y, _mm256_cmp_ps(y, y, _CMP_ORD_Q));
  return _mm256_or_si256(
      magnitude, _mm256_and_si256(_mm256_srli_epi32(_mm256_castps_si256(sign), 28),
                                  _mm256_set1_epi32(8)));
}

// 16 elements to pairs: each 32-bit lane is one byte of codes. Lanes: bytes 0 1 4 5 | 2 3 6 7.
NIBBLE_AVX2 inline __m256i e2m1_pairs(const float* x, float factor) {
  const __m256 f = _mm256_set1_ps(factor);
  return _mm256_madd_epi16(_mm256_packs_epi32(e2m1_codes(x, f), e2m1_codes(x + 8, f)),
                           _mm256_set1_epi32(0x00100001));
}

// 64 elements, 16 to a factor.
NIBBLE_AVX2 inline void encode_64(const float* x, const float* factors, uint8_t* codes) {
  const __m256i ab = _mm256_packs_epi32(e2m1_pairs(x, factors[0]), e2m1_pairs(x + 16, factors[1]));
  const __m256i cd =
      _mm256_packs_epi32(e2m1_pairs(x + 32, factors[2]), e2m1_pairs(x + 48, factors[3]));
  const __m256i bytes = _mm256_packus_epi16(ab, cd);
  // The low half holds bytes 0 1 4 5 of each 16 elements, the high half 2 3 6 7.
  const __m128i low = _mm256_castsi256_si128(bytes), high = _mm256_extracti128_si256(bytes, 1);
  auto* out = reinterpret_cast<__m128i*>(codes);
  _mm_storeu_si128(out, _mm_unpacklo_epi16(low, high));
  _mm_storeu_si128(out + 1, _mm_unpackhi_epi16(low, high));
}

NIBBLE_AVX2 void quantize_nvfp4(float encode_scale, const float* x, int64_t blocks, uint8_t* codes,
                                uint8_t* scales) {
  int64_t b = 0;
  for (; b + 4 <= blocks; b += 4) {
    float amax[4], factors[4];
    four_amax(x + b * kNvfp4BlockSize, amax);
    for (int i = 0; i < 4; ++i) {
      scales[b + i] = float_to_e4m3_satfinite(nvfp4_ideal_scale(amax[i], encode_scale));
      factors[i] = nvfp4_factor(scales[b + i], encode_scale);
    }
    encode_64(x + b * kNvfp4BlockSize, factors, codes + b * kNvfp4BlockBytes);
  }
  for (; b < blocks; ++b) {
    scales[b] =
        quantize_nvfp4_block(x + b * kNvfp4BlockSize, encode_scale, codes + b * kNvfp4BlockBytes);
  }
}

NIBBLE_AVX2 void quantize_mxfp4(Mxfp4ScaleRule rule, const float* x, int64_t blocks, uint8_t* codes,
                                uint8_t* scales) {
  int64_t b = 0;
  for (; b + 2 <= blocks; b += 2) {
    float factors[4];
    for (int i = 0; i < 2; ++i) {
      const float amax = reduce_max(lane_amax<4>(x + (b + i) * kMxfp4BlockSize));
      scales[b + i] = ue8m0_from_amax(amax, rule);
      factors[2 * i] = factors[2 * i + 1] = ue8m0_reciprocal(scales[b + i]);
    }
    encode_64(x + b * kMxfp4BlockSize, factors, codes + b * kMxfp4BlockBytes);
  }
  for (; b < blocks; ++b) {
    scales[b] = quantize_mxfp4_block(x + b * kMxfp4BlockSize, rule, codes + b * kMxfp4BlockBytes);
  }
}

}  // namespace
}  // namespace nibble::cpu
