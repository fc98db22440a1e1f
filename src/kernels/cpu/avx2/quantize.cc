// The portable quantizer's amax, e2m1 codes and block errors in AVX2; computing a scale stays with
// formats/. Functions carry the instruction set themselves: with a compiler flag for the file,
// inline functions of shared headers would be compiled for AVX2 as well, and the linker might keep
// those for everyone.
#include "kernels/cpu/quantize.h"

#include <immintrin.h>

#include <cstring>

#include "formats/block_search.h"
#include "formats/mxfp4.h"
#include "formats/nvfp4.h"
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

// 2^22 times the power of two at or below a (at least 1), for a in [0, 6]. The last place of
// a + magic is e2m1's step at a, so the addition rounds as e2m1 does.
NIBBLE_AVX2 inline __m256 e2m1_magic(__m256 a) {
  const __m256i power = _mm256_and_si256(
      _mm256_castps_si256(_mm256_max_ps(a, _mm256_set1_ps(1.0f))), _mm256_set1_epi32(0x7F800000));
  return _mm256_castsi256_ps(_mm256_add_epi32(power, _mm256_set1_epi32(22 << 23)));
}

// e2m1 codes of x * factor, one in the low four bits of each lane. The low bits of a + magic count
// steps: 0..4 below 2, 2..4 below 4, 2..3 to 6. Two more per power of two make them codes.
NIBBLE_AVX2 inline __m256i e2m1_codes(const float* x, __m256 factor) {
  const __m256 y = _mm256_mul_ps(_mm256_loadu_ps(x), factor);
  const __m256 a = _mm256_min_ps(abs(y), _mm256_set1_ps(kE2m1Max));  // NaN gives 6
  const __m256 magic = e2m1_magic(a);
  const __m256i sum = _mm256_castps_si256(_mm256_add_ps(a, magic));
  // magic >> 22 is twice the biased exponent, 2 * (127 + 22) = 2 modulo 8 for a power of 1.
  const __m256i twice = _mm256_srli_epi32(_mm256_castps_si256(magic), 22);
  const __m256i magnitude = _mm256_and_si256(
      _mm256_add_epi32(_mm256_add_epi32(sum, twice), _mm256_set1_epi32(-2)), _mm256_set1_epi32(7));
  const __m256 sign = _mm256_and_ps(y, _mm256_cmp_ps(y, y, _CMP_ORD_Q));
  return _mm256_or_si256(
      magnitude,
      _mm256_and_si256(_mm256_srli_epi32(_mm256_castps_si256(sign), 28), _mm256_set1_epi32(8)));
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

// |y| rounded to e2m1 and taken from |y|, squared: one element's part of e2m1_block_error.
NIBBLE_AVX2 inline __m256 squared_error(__m256 x, __m256 factor) {
  const __m256 a = abs(_mm256_mul_ps(x, factor));
  const __m256 clipped = _mm256_min_ps(a, _mm256_set1_ps(kE2m1Max));
  const __m256 magic = e2m1_magic(clipped);
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

NIBBLE_AVX2 inline uint8_t nvfp4_rtn(const float* x, float encode_scale) {
  return float_to_e4m3_satfinite(
      nvfp4_ideal_scale(reduce_max(lane_amax<kNvfp4BlockSize / 8>(x)), encode_scale));
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

template <Mxfp4ScaleRule kRule>
NIBBLE_AVX2 inline uint8_t mxfp4_rtn(const float* x, float) {
  return ue8m0_from_amax(reduce_max(lane_amax<kMxfp4BlockSize / 8>(x)), kRule);
}

NIBBLE_AVX2 inline uint8_t mxfp4_mse(const float* x, float) {
  const uint8_t ceil = mxfp4_rtn<Mxfp4ScaleRule::kCeil>(x, 0.0f);
  if (ceil == 0) return ceil;
  const uint8_t half = static_cast<uint8_t>(ceil - 1);
  const float error = 4.0f * block_error<kMxfp4BlockSize>(x, ue8m0_reciprocal(ceil));
  return block_error<kMxfp4BlockSize>(x, ue8m0_reciprocal(half)) < error ? half : ceil;
}

NIBBLE_AVX2 inline float factor_of(int block, uint8_t scale, float encode_scale) {
  return block == kNvfp4BlockSize ? nvfp4_factor(scale, encode_scale) : ue8m0_reciprocal(scale);
}

// Up to 64 elements of x, which must be readable to the end of the 64.
template <int kBlock, uint8_t (*kScale)(const float*, float)>
NIBBLE_AVX2 inline void quantize_64(float encode_scale, const float* x, int blocks, uint8_t* codes,
                                    uint8_t* scales) {
  constexpr int kParts = kBlock / 16;
  float factors[4] = {};
  for (int b = 0; b < blocks; ++b) {
    scales[b] = kScale(x + b * kBlock, encode_scale);
    for (int i = 0; i < kParts; ++i) {
      factors[b * kParts + i] = factor_of(kBlock, scales[b], encode_scale);
    }
  }
  encode_64(x, factors, codes);
}

template <int kBlock, uint8_t (*kScale)(const float*, float)>
NIBBLE_AVX2 void quantize(float encode_scale, const float* x, int64_t blocks, uint8_t* codes,
                          uint8_t* scales) {
  constexpr int kGroup = 64 / kBlock;
  int64_t b = 0;
  for (; b + kGroup <= blocks; b += kGroup) {
    quantize_64<kBlock, kScale>(encode_scale, x + b * kBlock, kGroup, codes + b * kBlock / 2,
                                scales + b);
  }
  if (b == blocks) return;
  const int rest = static_cast<int>(blocks - b);
  float padded[64] = {};
  uint8_t padded_codes[32];
  std::memcpy(padded, x + b * kBlock, rest * kBlock * sizeof(float));
  quantize_64<kBlock, kScale>(encode_scale, padded, rest, padded_codes, scales + b);
  std::memcpy(codes + b * kBlock / 2, padded_codes, rest * kBlock / 2);
}

void quantize_blocks(const QuantizeDesc& d, float encode_scale, const float* x, int64_t blocks,
                     uint8_t* codes, uint8_t* scales) {
  const auto run = [&](auto* fn) { fn(encode_scale, x, blocks, codes, scales); };
  if (d.format == WeightFormat::kMxfp4) {
    if (d.method == QuantizeMethod::kMse) return run(quantize<kMxfp4BlockSize, mxfp4_mse>);
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
      return run(quantize<kNvfp4BlockSize, nvfp4_mse>);
    case QuantizeMethod::kFourOverSix:
      return run(quantize<kNvfp4BlockSize, nvfp4_four_over_six>);
  }
}

// The values of the code in the low four bits of each lane; higher bits are ignored.
NIBBLE_AVX2 inline __m256 e2m1_values(__m256i codes) {
  const __m256 magnitudes = _mm256_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f);
  const __m256i sign = _mm256_and_si256(_mm256_slli_epi32(codes, 28), _mm256_set1_epi32(1 << 31));
  return _mm256_or_ps(_mm256_permutevar8x32_ps(magnitudes, codes), _mm256_castsi256_ps(sign));
}

NIBBLE_AVX2 void dequantize_blocks(WeightFormat format, float global_decode_scale,
                                   const uint8_t* codes, const uint8_t* scales, int64_t blocks,
                                   float* x) {
  const bool mx = format == WeightFormat::kMxfp4;
  const int parts = mx ? 2 : 1;
  const __m256 global = _mm256_set1_ps(mx ? 1.0f : global_decode_scale);
  for (int64_t b = 0; b < blocks; ++b) {
    const __m256 scale = _mm256_set1_ps(mx ? ue8m0_to_float(scales[b]) : e4m3_to_float(scales[b]));
    for (int part = 0; part < parts; ++part, codes += 8, x += 16) {
      const __m256i pairs =
          _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes)));
      const __m256 even = _mm256_mul_ps(_mm256_mul_ps(e2m1_values(pairs), scale), global);
      const __m256 odd =
          _mm256_mul_ps(_mm256_mul_ps(e2m1_values(_mm256_srli_epi32(pairs, 4)), scale), global);
      const __m256 low = _mm256_unpacklo_ps(even, odd), high = _mm256_unpackhi_ps(even, odd);
      _mm256_storeu_ps(x, _mm256_permute2f128_ps(low, high, 0x20));
      _mm256_storeu_ps(x + 8, _mm256_permute2f128_ps(low, high, 0x31));
    }
  }
}

NIBBLE_AVX2 inline __m128i to_bf16(__m256 v) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd);
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
}

NIBBLE_AVX2 void narrow(DType type, const float* x, int64_t count, uint16_t* out) {
  for (int64_t i = 0; i < count; i += 8) {
    const __m256 v = _mm256_loadu_ps(x + i);
    const __m128i half = type == DType::kBF16
                             ? to_bf16(v)
                             : _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), half);
  }
}

template <class Desc>
Support with_avx2(const Desc& desc, const DeviceInfo& device,
                  Support (*can)(const Desc&, const DeviceInfo&)) {
  if (const Support s = can(desc, device); !s) return s;
  return device.cpu.avx2 ? Support::yes() : Support::no("needs AVX2, FMA and F16C");
}

}  // namespace

const QuantizeImpl kAvx2Quantize = {
    .name = "cpu_avx2_quantize",
    .can_implement = [](const QuantizeDesc& desc,
                        const DeviceInfo& device) { return with_avx2(desc, device, can_quantize); },
    .launch =
        [](const QuantizeArgs& args, const KernelConfig&, Stream stream) {
          quantize_rows(args, stream, {widen, quantize_blocks});
        }};

const DequantizeImpl kAvx2Dequantize = {
    .name = "cpu_avx2_dequantize",
    .can_implement =
        [](const DequantizeDesc& desc, const DeviceInfo& device) {
          return with_avx2(desc, device, can_dequantize);
        },
    .launch =
        [](const DequantizeArgs& args, const KernelConfig&, Stream stream) {
          dequantize_rows(args, stream, {dequantize_blocks, narrow});
        }};

}  // namespace nibble::cpu
