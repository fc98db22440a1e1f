// The portable quantizer's amax, e2m1 codes and block errors in AVX2; computing a scale stays with
// formats/. Functions carry the instruction set themselves: with a compiler flag for the file,
// inline functions of shared headers would be compiled for AVX2 as well, and the linker might keep
// those for everyone.
#include "kernels/cpu/quantize.h"

#include <immintrin.h>

#include <cstring>
#include <limits>

#include "formats/block_search.h"
#include "formats/mxfp4.h"
#include "formats/nvfp4.h"
#include "kernels/cpu/quantize_rows.h"

#define NIBBLE_AVX2 __attribute__((target("avx2,fma,f16c")))

namespace nibble::cpu {
namespace {

constexpr float kFloatMax = std::numeric_limits<float>::max();

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

NIBBLE_AVX2 inline __m256 abs(__m256 v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }

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

// 2^n times the power of two at or below a.
NIBBLE_AVX2 inline __m256 power_below(__m256 a, int n) {
  const __m256i power = _mm256_and_si256(_mm256_castps_si256(a), _mm256_set1_epi32(0x7F800000));
  return _mm256_castsi256_ps(_mm256_add_epi32(power, _mm256_set1_epi32(n << 23)));
}

// e2m1 codes of |y|, in the low 16 bits of each lane. A code is the integer nearest to the least of
// 2a, a + 2 and a/2 + 4, the lines through the codes of each binade; 1.5 * 2^23 has an ulp of 1, so
// that each addition rounds once, ties to even. minps gives its second operand, 7, where one is
// NaN.
NIBBLE_AVX2 inline __m256i e2m1_magnitudes(__m256 y) {
  constexpr float kMagic = 0x1.8p23f;
  const __m256 a = abs(y);
  const __m256 low = _mm256_fmadd_ps(a, _mm256_set1_ps(2.0f), _mm256_set1_ps(kMagic));
  const __m256 middle = _mm256_add_ps(a, _mm256_set1_ps(kMagic + 2));
  const __m256 high = _mm256_fmadd_ps(a, _mm256_set1_ps(0.5f), _mm256_set1_ps(kMagic + 4));
  return _mm256_castps_si256(
      _mm256_min_ps(_mm256_min_ps(_mm256_min_ps(low, middle), high), _mm256_set1_ps(kMagic + 7)));
}

// 16 elements to pairs: each 32-bit lane is one byte of codes. Lanes: bytes 0 1 4 5 | 2 3 6 7. Adds
// to `nan` which lanes saw NaN; their sign is not cleared.
NIBBLE_AVX2 inline __m256i e2m1_pairs(const float* x, float factor, __m256& nan) {
  const __m256 x0 = _mm256_loadu_ps(x), x1 = _mm256_loadu_ps(x + 8), f = _mm256_set1_ps(factor);
  const __m256 even = _mm256_mul_ps(_mm256_shuffle_ps(x0, x1, 0x88), f);
  const __m256 odd = _mm256_mul_ps(_mm256_shuffle_ps(x0, x1, 0xDD), f);
  nan = _mm256_or_ps(nan, _mm256_cmp_ps(even, odd, _CMP_UNORD_Q));
  // Even elements to the low, odd ones to the high 16 bits.
  const __m256i magnitudes =
      _mm256_blend_epi16(e2m1_magnitudes(even), _mm256_slli_epi32(e2m1_magnitudes(odd), 16), 0xAA);
  const __m256i signs = _mm256_blend_epi16(_mm256_srli_epi32(_mm256_castps_si256(even), 16),
                                           _mm256_castps_si256(odd), 0xAA);
  const __m256i codes = _mm256_or_si256(
      magnitudes, _mm256_and_si256(_mm256_srli_epi16(signs, 12), _mm256_set1_epi16(8)));
  return _mm256_madd_epi16(codes, _mm256_set1_epi32(0x00100001));
}

// 64 elements, 16 to a factor.
NIBBLE_AVX2 inline void encode_64(const float* x, const float* factors, uint8_t* codes) {
  __m256 nan = _mm256_setzero_ps();
  const __m256i ab =
      _mm256_packs_epi32(e2m1_pairs(x, factors[0], nan), e2m1_pairs(x + 16, factors[1], nan));
  const __m256i cd =
      _mm256_packs_epi32(e2m1_pairs(x + 32, factors[2], nan), e2m1_pairs(x + 48, factors[3], nan));
  if (_mm256_movemask_ps(nan) != 0) {
    for (int i = 0; i < 4; ++i) encode_e2m1_block<16>(x + 16 * i, factors[i], codes + 8 * i);
    return;
  }
  const __m256i bytes = _mm256_packus_epi16(ab, cd);
  // The low half holds bytes 0 1 4 5 of each 16 elements, the high half 2 3 6 7.
  const __m128i low = _mm256_castsi256_si128(bytes), high = _mm256_extracti128_si256(bytes, 1);
  auto* out = reinterpret_cast<__m128i*>(codes);
  _mm_storeu_si128(out, _mm_unpacklo_epi16(low, high));
  _mm_storeu_si128(out + 1, _mm_unpackhi_epi16(low, high));
}

// |y| rounded to e2m1 and taken from |y|, squared: one element's part of e2m1_block_error. The last
// place of clipped + magic is e2m1's step there, so the addition rounds as e2m1 does.
NIBBLE_AVX2 inline __m256 squared_error(__m256 x, __m256 factor) {
  const __m256 a = abs(_mm256_mul_ps(x, factor));
  const __m256 clipped = _mm256_min_ps(a, _mm256_set1_ps(kE2m1Max));
  const __m256 magic = power_below(_mm256_max_ps(clipped, _mm256_set1_ps(1.0f)), 22);
  const __m256 d = _mm256_sub_ps(a, _mm256_sub_ps(_mm256_add_ps(clipped, magic), magic));
  return _mm256_mul_ps(d, d);
}

// e2m1_block_error<N>, with its pairwise order of additions.
template <int N>
NIBBLE_AVX2 inline float block_error(const float* x, float factor) {
  __m256 squares[N / 8];
  for (int i = 0; i < N / 8; ++i) {
    squares[i] = squared_error(_mm256_loadu_ps(x + 8 * i), _mm256_set1_ps(factor));
  }
  for (int half = N / 16; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) squares[i] = _mm256_add_ps(squares[i], squares[i + half]);
  }
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(squares[0]), _mm256_extractf128_ps(squares[0], 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

// e2m1_block_error<16> of eight factors, one to a lane.
NIBBLE_AVX2 inline __m256 eight_block_errors(const float* x, __m256 factors) {
  __m256 sums[4];
  for (int i = 0; i < 4; ++i) {
    __m256 squares[4];
    for (int j = 0; j < 4; ++j) {
      squares[j] = squared_error(_mm256_broadcast_ss(x + i + 4 * j), factors);
    }
    sums[i] =
        _mm256_add_ps(_mm256_add_ps(squares[0], squares[2]), _mm256_add_ps(squares[1], squares[3]));
  }
  return _mm256_add_ps(_mm256_add_ps(sums[0], sums[2]), _mm256_add_ps(sums[1], sums[3]));
}

// Largest magnitude of each of eight blocks, one to a lane.
template <int kBlock>
NIBBLE_AVX2 inline __m256 eight_amax(const float* x) {
  __m256 v[8];
  for (int i = 0; i < 8; ++i) v[i] = lane_amax<kBlock / 8>(x + i * kBlock);
  for (int i = 0; i < 4; ++i) {  // v[i]: blocks i and i + 4, two lanes each in either half
    v[i] = _mm256_max_ps(_mm256_unpacklo_ps(v[i], v[i + 4]), _mm256_unpackhi_ps(v[i], v[i + 4]));
  }
  for (int i = 0; i < 2; ++i) {  // blocks i, i + 2, i + 4, i + 6, one lane each
    v[i] = _mm256_max_ps(_mm256_unpacklo_ps(v[i], v[i + 2]), _mm256_unpackhi_ps(v[i], v[i + 2]));
  }
  // Blocks 0 2 4 6 in either half of v[0], 1 3 5 7 in v[1].
  const __m256 even = _mm256_max_ps(v[0], _mm256_permute2f128_ps(v[0], v[0], 1));
  const __m256 odd = _mm256_max_ps(v[1], _mm256_permute2f128_ps(v[1], v[1], 1));
  return _mm256_permute2f128_ps(_mm256_unpacklo_ps(even, odd), _mm256_unpackhi_ps(even, odd), 0x20);
}

// The low bytes of eight lanes.
NIBBLE_AVX2 inline void store_bytes(__m256i v, uint8_t* out) {
  const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(out), _mm_packus_epi16(words, words));
}

// Eight blocks' scales and factors, a block at a time.
template <int kBlock, uint8_t (*kScale)(const float* x, float encode_scale)>
NIBBLE_AVX2 inline void each(const float* x, float encode_scale, uint8_t* scales, float* factors) {
  for (int b = 0; b < 8; ++b) {
    scales[b] = kScale(x + b * kBlock, encode_scale);
    factors[b] = kBlock == kNvfp4BlockSize ? nvfp4_factor(scales[b], encode_scale)
                                           : ue8m0_reciprocal(scales[b]);
  }
}

uint8_t nvfp4_scale(const float* x, float encode_scale) {
  return float_to_e4m3_satfinite(nvfp4_ideal_scale(block_amax<kNvfp4BlockSize>(x), encode_scale));
}

NIBBLE_AVX2 inline void nvfp4_rtn(const float* x, float encode_scale, uint8_t* scales,
                                  float* factors) {
  if (!(encode_scale <= kFloatMax)) {  // where a zero block's scale is NaN
    return each<kNvfp4BlockSize, nvfp4_scale>(x, encode_scale, scales, factors);
  }
  const __m256 encode = _mm256_set1_ps(encode_scale);
  const __m256 ideal = _mm256_mul_ps(
      encode, _mm256_mul_ps(eight_amax<kNvfp4BlockSize>(x), _mm256_set1_ps(1.0f / kE2m1Max)));
  // float_to_e4m3_satfinite: the last place of magic is e4m3's step at a, and 2^-120 takes e4m3's
  // exponents to fp32's lowest.
  const __m256 a = _mm256_min_ps(ideal, _mm256_set1_ps(kE4m3Max));
  const __m256 magic = power_below(_mm256_max_ps(a, _mm256_set1_ps(0x1p-6f)), 20);
  const __m256 scale = _mm256_sub_ps(_mm256_add_ps(a, magic), magic);
  store_bytes(
      _mm256_srli_epi32(_mm256_castps_si256(_mm256_mul_ps(scale, _mm256_set1_ps(0x1p-120f))), 20),
      scales);
  const __m256 factor = _mm256_min_ps(_mm256_div_ps(encode, scale), _mm256_set1_ps(kFloatMax));
  const __m256 some = _mm256_cmp_ps(scale, _mm256_setzero_ps(), _CMP_NEQ_OQ);
  _mm256_storeu_ps(factors, _mm256_and_ps(factor, some));
}

NIBBLE_AVX2 inline float nvfp4_error(const float* x, float encode_scale, uint8_t scale) {
  if (scale == 0) return nvfp4_block_error(x, encode_scale, scale);
  const float s = e4m3_to_float(scale);
  return block_error<kNvfp4BlockSize>(x, nvfp4_factor(scale, encode_scale)) * (s * s);
}

NIBBLE_AVX2 inline uint8_t nvfp4_four_over_six(const float* x, float encode_scale) {
  const float ideal =
      nvfp4_ideal_scale(reduce_max(lane_amax<kNvfp4BlockSize / 8>(x)), encode_scale);
  const uint8_t to_six = float_to_e4m3_satfinite(ideal);
  const uint8_t to_four = float_to_e4m3_satfinite(1.5f * ideal);
  return nvfp4_error(x, encode_scale, to_four) < nvfp4_error(x, encode_scale, to_six) ? to_four
                                                                                      : to_six;
}

// nvfp4_mse_scale, eight candidates at a time, one to a lane. Its early stop is looked at once per
// eight: as long as factors are neither subnormal nor capped, candidates beyond it can't win, so
// that trying some of them changes nothing.
NIBBLE_AVX2 inline uint8_t nvfp4_mse(const float* x, float encode_scale) {
  if (!(encode_scale >= 0x1p-116f && encode_scale <= kNvfp4MaxEncodeScale)) {
    return nvfp4_mse_scale(x, encode_scale);
  }
  const float amax = reduce_max(lane_amax<kNvfp4BlockSize / 8>(x));
  const uint8_t plain = float_to_e4m3_satfinite(nvfp4_ideal_scale(amax, encode_scale));
  if (amax == 0.0f || !(amax * encode_scale < 0x1p14f)) return plain;

  uint8_t best = plain;
  float best_error = 0x1.fffffep127f;
  const int top = plain < 8 ? 15 : plain + 7 < kE4m3MaxCode ? plain + 7 : kE4m3MaxCode;
  for (int code = top; code >= 1; code -= 8) {
    const float s = e4m3_to_float(static_cast<uint8_t>(code));
    const float clipped = amax * nvfp4_factor(static_cast<uint8_t>(code), encode_scale) - kE2m1Max;
    if (clipped > 0.0f && clipped * clipped * (s * s) > best_error) break;
    alignas(32) float scales[8];
    for (int i = 0; i < 8; ++i) {
      // Below 1 there is no candidate; NaN makes its error one that is never the least.
      scales[i] = e4m3_to_float(code - i >= 1 ? static_cast<uint8_t>(code - i) : kE4m3Nan);
    }
    const __m256 scale = _mm256_load_ps(scales);
    const __m256 factor = _mm256_min_ps(_mm256_div_ps(_mm256_set1_ps(encode_scale), scale),
                                        _mm256_set1_ps(0x1.fffffep127f));
    const __m256 error = _mm256_mul_ps(eight_block_errors(x, factor), _mm256_mul_ps(scale, scale));
    // minps gives its second operand where one is NaN.
    const __m256 known = _mm256_min_ps(error, _mm256_set1_ps(__builtin_inff()));
    const float least = -reduce_max(_mm256_sub_ps(_mm256_setzero_ps(), known));
    if (least <= best_error) {
      const int equal = _mm256_movemask_ps(_mm256_cmp_ps(known, _mm256_set1_ps(least), _CMP_EQ_OQ));
      best = static_cast<uint8_t>(code - (31 - __builtin_clz(equal)));
      best_error = least;
    }
  }
  return best;
}

NIBBLE_AVX2 inline uint8_t mxfp4_mse(const float* x, float) {
  const float amax = reduce_max(lane_amax<kMxfp4BlockSize / 8>(x));
  const uint8_t ceil = ue8m0_from_amax(amax, Mxfp4ScaleRule::kCeil);
  if (ceil == 0) return ceil;
  const uint8_t half = static_cast<uint8_t>(ceil - 1);
  const float error = 4.0f * block_error<kMxfp4BlockSize>(x, ue8m0_reciprocal(ceil));
  return block_error<kMxfp4BlockSize>(x, ue8m0_reciprocal(half)) < error ? half : ceil;
}

template <Mxfp4ScaleRule kRule>
NIBBLE_AVX2 inline void mxfp4_rtn(const float* x, float, uint8_t* scales, float* factors) {
  alignas(32) float amax[8];
  _mm256_store_ps(amax, eight_amax<kMxfp4BlockSize>(x));
  for (int b = 0; b < 8; ++b) {
    scales[b] = ue8m0_from_amax(amax[b], kRule);
    factors[b] = ue8m0_reciprocal(scales[b]);
  }
}

using ScalesFn = void (*)(const float* x, float encode_scale, uint8_t* scales, float* factors);

// Eight blocks: vectors over blocks, one to a lane, find their scales.
template <int kBlock, ScalesFn kScales>
NIBBLE_AVX2 inline void quantize_eight(float encode_scale, const float* x, uint8_t* codes,
                                       uint8_t* scales) {
  alignas(32) float factors[8];
  kScales(x, encode_scale, scales, factors);
  constexpr int kParts = kBlock / 16;  // of a block that share its factor
  for (int part = 0; part < 8 * kParts; part += 4) {
    const float parts[4] = {factors[part / kParts], factors[(part + 1) / kParts],
                            factors[(part + 2) / kParts], factors[(part + 3) / kParts]};
    encode_64(x + 16 * part, parts, codes + 8 * part);
  }
}

template <int kBlock, ScalesFn kScales>
NIBBLE_AVX2 void quantize(float encode_scale, const float* x, int64_t blocks, uint8_t* codes,
                          uint8_t* scales) {
  int64_t b = 0;
  for (; b + 8 <= blocks; b += 8) {
    quantize_eight<kBlock, kScales>(encode_scale, x + b * kBlock, codes + b * kBlock / 2,
                                    scales + b);
  }
  if (b == blocks) return;
  const int64_t rest = blocks - b;
  float padded[8 * kBlock] = {};
  uint8_t padded_codes[4 * kBlock], padded_scales[8];
  std::memcpy(padded, x + b * kBlock, rest * kBlock * sizeof(float));
  quantize_eight<kBlock, kScales>(encode_scale, padded, padded_codes, padded_scales);
  std::memcpy(codes + b * kBlock / 2, padded_codes, rest * kBlock / 2);
  std::memcpy(scales + b, padded_scales, rest);
}

void quantize_blocks(const QuantizeDesc& d, float encode_scale, const float* x, int64_t blocks,
                     uint8_t* codes, uint8_t* scales) {
  const auto run = [&](auto* fn) { fn(encode_scale, x, blocks, codes, scales); };
  if (d.format == WeightFormat::kMxfp4) {
    if (d.method == QuantizeMethod::kMse)
      return run(quantize<kMxfp4BlockSize, each<kMxfp4BlockSize, mxfp4_mse>>);
    switch (d.scale_rule) {
      case Mxfp4ScaleRule::kCeil:
        return run(quantize<kMxfp4BlockSize, mxfp4_rtn<Mxfp4ScaleRule::kCeil>>);
      case Mxfp4ScaleRule::kFloor:
        return run(quantize<kMxfp4BlockSize, mxfp4_rtn<Mxfp4ScaleRule::kFloor>>);
      case Mxfp4ScaleRule::kEven:
        return run(quantize<kMxfp4BlockSize, mxfp4_rtn<Mxfp4ScaleRule::kEven>>);
    }
  }
  switch (d.method) {
    case QuantizeMethod::kRtn:
      return run(quantize<kNvfp4BlockSize, nvfp4_rtn>);
    case QuantizeMethod::kMse:
      return run(quantize<kNvfp4BlockSize, each<kNvfp4BlockSize, nvfp4_mse>>);
    case QuantizeMethod::kFourOverSix:
      return run(quantize<kNvfp4BlockSize, each<kNvfp4BlockSize, nvfp4_four_over_six>>);
  }
}

}  // namespace

const QuantizeImpl kAvx2Quantize = {
    .name = "cpu_avx2_quantize",
    .can_implement =
        [](const QuantizeDesc& desc, const DeviceInfo& device) {
          const Support s = can_quantize(desc, device);
          return s && !device.cpu.avx2 ? Support::no("needs AVX2, FMA and F16C") : s;
        },
    .launch =
        [](const QuantizeArgs& args, const KernelConfig&, Stream stream) {
          quantize_rows(args, stream, {widen, quantize_blocks});
        }};

}  // namespace nibble::cpu
