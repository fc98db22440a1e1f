// Functions carry the instruction set themselves; kernels/cpu/avx2/quantize.cc says why. What is
// left over after groups of eight is the portable loops' work.
#include <immintrin.h>

#include <algorithm>

#include "formats/e4m3.h"
#include "quantizer/row_loops.h"

#define NIBBLE_AVX2 __attribute__((target("avx2,fma,f16c")))

namespace nibble {
namespace {

// Eight elements from src[i] on.
template <DType kType>
NIBBLE_AVX2 inline __m256 load(const void* src, int64_t i) {
  if constexpr (kType == DType::kF32) return _mm256_loadu_ps(static_cast<const float*>(src) + i);
  const auto* half = reinterpret_cast<const __m128i*>(static_cast<const uint16_t*>(src) + i);
  if constexpr (kType == DType::kF16) return _mm256_cvtph_ps(_mm_loadu_si128(half));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(half)), 16));
}

template <DType kType>
NIBBLE_AVX2 void widen(const void* src, int64_t groups, float* out) {
  for (int64_t i = 0; i < 8 * groups; i += 8) _mm256_storeu_ps(out + i, load<kType>(src, i));
}

NIBBLE_AVX2 inline double sum(__m256d a, __m256d b) {
  const __m256d v = _mm256_add_pd(a, b);
  const __m128d half = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
  return _mm_cvtsd_f64(_mm_add_sd(half, _mm_unpackhi_pd(half, half)));
}

NIBBLE_AVX2 inline __m256d low_half(__m256 v) { return _mm256_cvtps_pd(_mm256_castps256_ps128(v)); }
NIBBLE_AVX2 inline __m256d high_half(__m256 v) {
  return _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
}

// The difference is taken in fp32: exact where q is 0 or within a factor of two of w (Sterbenz).
template <DType kType>
NIBBLE_AVX2 SquaredErrors errors(const void* stored, const float* decoded, int64_t groups) {
  __m256d error[2] = {_mm256_setzero_pd(), _mm256_setzero_pd()};
  __m256d norm[2] = {_mm256_setzero_pd(), _mm256_setzero_pd()};
  for (int64_t i = 0; i < 8 * groups; i += 8) {
    const __m256 w = load<kType>(stored, i);
    const __m256 d = _mm256_sub_ps(w, _mm256_loadu_ps(decoded + i));
    const __m256d w0 = low_half(w), w1 = high_half(w), d0 = low_half(d), d1 = high_half(d);
    error[0] = _mm256_fmadd_pd(d0, d0, error[0]);
    error[1] = _mm256_fmadd_pd(d1, d1, error[1]);
    norm[0] = _mm256_fmadd_pd(w0, w0, norm[0]);
    norm[1] = _mm256_fmadd_pd(w1, w1, norm[1]);
  }
  return {sum(error[0], error[1]), sum(norm[0], norm[1])};
}

NIBBLE_AVX2 inline __m256 abs(__m256 v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }

// maxps gives its second operand where one is NaN.
NIBBLE_AVX2 float amax(const float* values, int64_t groups) {
  __m256 largest = _mm256_setzero_ps();
  for (int64_t i = 0; i < 8 * groups; i += 8) {
    largest = _mm256_max_ps(abs(_mm256_loadu_ps(values + i)), largest);
  }
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(largest), _mm256_extractf128_ps(largest, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

// float_to_e4m3_satfinite and e4m3_to_float, with both of the former's ways to round.
NIBBLE_AVX2 void encode_e4m3(float scale, float* values, int64_t groups, uint8_t* codes) {
  const __m256 factor = _mm256_set1_ps(scale);
  const __m256 magic = _mm256_set1_ps(0x1p14f);
  const __m256i half = _mm256_set1_epi32((1 << 19) - 1);
  const __m256i one = _mm256_set1_epi32(1);
  for (int64_t i = 0; i < 8 * groups; i += 8) {
    const __m256 y = _mm256_div_ps(_mm256_loadu_ps(values + i), factor);
    const __m256 a = _mm256_min_ps(abs(y), _mm256_set1_ps(kE4m3Max));  // NaN gives 448
    const __m256 sign = _mm256_and_ps(y, _mm256_set1_ps(-0.0f));
    const __m256 nan = _mm256_cmp_ps(y, y, _CMP_UNORD_Q);
    const __m256 normal = _mm256_cmp_ps(a, _mm256_set1_ps(0x1p-6f), _CMP_GE_OQ);

    const __m256i bits = _mm256_castps_si256(a);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 20), one);
    const __m256i rounded =
        _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(half, odd)), 20);
    const __m256 shifted = _mm256_add_ps(a, magic);
    const __m256i code = _mm256_blendv_epi8(
        _mm256_sub_epi32(_mm256_castps_si256(shifted), _mm256_castps_si256(magic)),
        _mm256_sub_epi32(rounded, _mm256_set1_epi32(120 << 3)), _mm256_castps_si256(normal));
    const __m256 value = _mm256_blendv_ps(
        _mm256_sub_ps(shifted, magic), _mm256_castsi256_ps(_mm256_slli_epi32(rounded, 20)), normal);

    const __m256i with_sign =
        _mm256_or_si256(code, _mm256_srli_epi32(_mm256_castps_si256(sign), 24));
    const __m256i known =
        _mm256_blendv_epi8(with_sign, _mm256_set1_epi32(kE4m3Nan), _mm256_castps_si256(nan));
    const __m128i words =
        _mm_packus_epi32(_mm256_castsi256_si128(known), _mm256_extracti128_si256(known, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(codes + i), _mm_packus_epi16(words, words));
    _mm256_storeu_ps(values + i,
                     _mm256_mul_ps(_mm256_blendv_ps(_mm256_or_ps(value, sign), y, nan), factor));
  }
}

const uint8_t* at(DType type, const void* src, int64_t i) {
  return static_cast<const uint8_t*>(src) + i * static_cast<int64_t>(size_of(type));
}

constexpr RowLoops kAvx2RowLoops = {
    .widen =
        [](DType type, const void* src, int64_t count, float* out) {
          auto* run = type == DType::kF32   ? widen<DType::kF32>
                      : type == DType::kF16 ? widen<DType::kF16>
                                            : widen<DType::kBF16>;
          run(src, count / 8, out);
          const int64_t done = count / 8 * 8;
          kPortableRowLoops.widen(type, at(type, src, done), count - done, out + done);
        },
    .errors =
        [](DType type, const void* stored, const float* decoded, int64_t count) {
          auto* run = type == DType::kF32   ? errors<DType::kF32>
                      : type == DType::kF16 ? errors<DType::kF16>
                                            : errors<DType::kBF16>;
          SquaredErrors total = run(stored, decoded, count / 8);
          const int64_t done = count / 8 * 8;
          total +=
              kPortableRowLoops.errors(type, at(type, stored, done), decoded + done, count - done);
          return total;
        },
    .amax =
        [](const float* values, int64_t count) {
          const int64_t done = count / 8 * 8;
          return std::max(amax(values, count / 8),
                          kPortableRowLoops.amax(values + done, count - done));
        },
    .encode_e4m3 =
        [](float scale, float* values, int64_t count, uint8_t* codes) {
          encode_e4m3(scale, values, count / 8, codes);
          const int64_t done = count / 8 * 8;
          kPortableRowLoops.encode_e4m3(scale, values + done, count - done, codes + done);
        }};

}  // namespace

const RowLoops& row_loops(const CpuFeatures& cpu) {
  return cpu.avx2 ? kAvx2RowLoops : kPortableRowLoops;
}

}  // namespace nibble
