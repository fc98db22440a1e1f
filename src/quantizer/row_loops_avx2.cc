// Functions carry the instruction set themselves; kernels/cpu/avx2/quantize.cc says why. What is
// left over after whole vectors is the portable loops' work.
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "formats/bits.h"
#include "formats/e4m3.h"
#include "quantizer/row_loops.h"

#define NIBBLE_AVX2 __attribute__((target("avx2,fma,f16c")))

namespace nibble {
namespace {

const uint8_t* at(DType type, const void* stored, int64_t i) {
  return static_cast<const uint8_t*>(stored) + i * static_cast<int64_t>(size_of(type));
}

NIBBLE_AVX2 inline __m256i load_bits(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

// Eight elements from stored[i] on.
template <DType kType>
NIBBLE_AVX2 inline __m256 load(const void* stored, int64_t i) {
  const uint8_t* p = at(kType, stored, i);
  if constexpr (kType == DType::kF32) return _mm256_castsi256_ps(load_bits(p));
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  if constexpr (kType == DType::kF16) return _mm256_cvtph_ps(half);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

// Sixteen elements from stored[i] on: the even ones and the odd ones, as codes lie in bytes.
struct Pairs {
  __m256 even, odd;
};
NIBBLE_AVX2 inline __m256 in_order(__m256 v) {  // of two shuffled ones' quarters
  return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(v), 0xD8));
}
template <DType kType>
NIBBLE_AVX2 inline Pairs load_pairs(const void* stored, int64_t i) {
  if constexpr (kType == DType::kBF16) {
    const __m256i v = load_bits(at(kType, stored, i));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(v, 16)),
            _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32(~0xFFFF)))};
  }
  const __m256 a = load<kType>(stored, i), b = load<kType>(stored, i + 8);
  return {in_order(_mm256_shuffle_ps(a, b, 0x88)), in_order(_mm256_shuffle_ps(a, b, 0xDD))};
}

template <DType kType>
NIBBLE_AVX2 float amax(const void* stored, int64_t vectors) {
  constexpr bool kWide = kType == DType::kF32;
  const __m256i magnitude = kWide ? _mm256_set1_epi32(0x7FFFFFFF) : _mm256_set1_epi16(0x7FFF);
  __m256i largest[4] = {};
  for (int64_t v = 0; v < vectors; ++v) {
    for (int i = 0; i < 4; ++i) {
      const __m256i bits = _mm256_and_si256(
          load_bits(static_cast<const uint8_t*>(stored) + (4 * v + i) * 32), magnitude);
      largest[i] = kWide ? _mm256_max_epi32(largest[i], bits) : _mm256_max_epi16(largest[i], bits);
    }
  }
  return kPortableRowLoops.amax(kType, largest, sizeof(largest) / size_of(kType));
}

constexpr int64_t kElements = 512;  // at a time

NIBBLE_AVX2 inline __m128 upper_half(__m256 v) { return _mm256_extractf128_ps(v, 1); }

NIBBLE_AVX2 inline float max_of(__m256 v) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), upper_half(v));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

NIBBLE_AVX2 inline float sum_of(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), upper_half(v));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

// Sums in fp32 of kElements squares at most, of values that are brought near 1 by a power of two:
// there squares neither overflow nor vanish. `largest` is no magnitude's hundredth part.
class Sums {
 public:
  NIBBLE_AVX2 explicit Sums(float largest) {
    const int exponent = static_cast<int>(float_bits(largest) >> 23);
    const int inverse = std::clamp(254 - exponent, 1, 253);
    factor = _mm256_set1_ps(float_from_bits(static_cast<uint32_t>(inverse) << 23));
    const float unit = float_from_bits(static_cast<uint32_t>(254 - inverse) << 23);
    square_ = static_cast<double>(unit) * unit;
  }
  // Of values and what they were decoded to, both times the factor.
  NIBBLE_AVX2 void add(int i, __m256 stored, __m256 decoded) {
    const __m256 d = _mm256_sub_ps(stored, decoded);
    error_[i] = _mm256_fmadd_ps(d, d, error_[i]);
    norm_[i] = _mm256_fmadd_ps(stored, stored, norm_[i]);
  }
  NIBBLE_AVX2 SquaredErrors total() const {
    return {sum_of(_mm256_add_ps(error_[0], error_[1])) * square_,
            sum_of(_mm256_add_ps(norm_[0], norm_[1])) * square_};
  }

  __m256 factor;

 private:
  __m256 error_[2] = {}, norm_[2] = {};
  double square_;
};

// Values of the codes in the low four bits of each lane; higher bits are ignored.
NIBBLE_AVX2 inline __m256 decode(__m256 magnitudes, __m256i codes) {
  const __m256i sign = _mm256_and_si256(_mm256_slli_epi32(codes, 28), _mm256_set1_epi32(1 << 31));
  return _mm256_xor_ps(_mm256_permutevar8x32_ps(magnitudes, codes), _mm256_castsi256_ps(sign));
}

// e4m3_to_float and ue8m0_to_float of eight positive scales.
NIBBLE_AVX2 inline __m256 scale_values(bool mx, const uint8_t* scales) {
  const __m256i codes =
      _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales)));
  if (mx) {  // 0 is 2^-127
    return _mm256_castsi256_ps(
        _mm256_max_epi32(_mm256_slli_epi32(codes, 23), _mm256_set1_epi32(1 << 22)));
  }
  return _mm256_mul_ps(_mm256_castsi256_ps(_mm256_slli_epi32(codes, 20)), _mm256_set1_ps(0x1p120f));
}

// Of kElements at most.
template <DType kType>
NIBBLE_AVX2 SquaredErrors errors(const EncodedBlocks& e) {
  const bool mx = e.format == WeightFormat::kMxfp4;
  const float global = mx ? 1.0f : e.global_decode_scale;
  uint8_t codes_of_scales[kElements / 16] = {};
  std::memcpy(codes_of_scales, e.scales, static_cast<size_t>(e.blocks));
  alignas(32) float scales[kElements / 16];
  // Not 0 with e4m3: what is below half of its smallest becomes 0, and may be all there is.
  __m256 largest = _mm256_set1_ps(mx ? 0.0f : 0x1p-9f);
  for (int64_t b = 0; b < e.blocks; b += 8) {
    const __m256 values = scale_values(mx, codes_of_scales + b);
    largest = _mm256_max_ps(largest, values);
    _mm256_store_ps(scales + b, values);
  }
  Sums sums(max_of(largest) * global);
  const __m256 global_factor = _mm256_mul_ps(_mm256_set1_ps(global), sums.factor);
  const __m256 e2m1 = _mm256_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f);
  const int64_t size = block_size(e.format);
  for (int64_t b = 0; b < e.blocks; ++b) {
    // In the order of dequantization, so that it rounds alike.
    const __m256 magnitudes =
        _mm256_mul_ps(_mm256_mul_ps(e2m1, _mm256_set1_ps(scales[b])), global_factor);
    for (int64_t i = b * size; i < (b + 1) * size; i += 16) {
      const Pairs w = load_pairs<kType>(e.stored, i);
      const __m256i codes =
          _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(e.codes + i / 2)));
      sums.add(0, _mm256_mul_ps(w.even, sums.factor), decode(magnitudes, codes));
      sums.add(1, _mm256_mul_ps(w.odd, sums.factor),
               decode(magnitudes, _mm256_srli_epi32(codes, 4)));
    }
  }
  return sums.total();
}

NIBBLE_AVX2 inline __m256 abs(__m256 v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }

// float_to_e4m3_satfinite and e4m3_to_float. Of kElements at most.
template <DType kType>
NIBBLE_AVX2 SquaredErrors encode_e4m3(const void* stored, float scale, int64_t count,
                                      uint8_t* codes) {
  Sums sums(scale * 16);
  const __m256 factor = _mm256_mul_ps(_mm256_set1_ps(scale), sums.factor);
  for (int64_t i = 0; i < count; i += 8) {
    const __m256 w = load<kType>(stored, i);
    const __m256 y = _mm256_div_ps(w, _mm256_set1_ps(scale));
    const __m256 a = _mm256_min_ps(abs(y), _mm256_set1_ps(kE4m3Max));  // NaN gives 448
    const __m256 nan = _mm256_cmp_ps(y, y, _CMP_UNORD_Q);
    const __m256 sign = _mm256_andnot_ps(nan, _mm256_and_ps(y, _mm256_set1_ps(-0.0f)));

    // 2^20 times the power of two at or below a, 2^-6 at least: its last place is the step at a, so
    // that the addition rounds. 2^-120 takes e4m3's exponents to fp32's lowest.
    const __m256i power =
        _mm256_and_si256(_mm256_castps_si256(_mm256_max_ps(a, _mm256_set1_ps(0x1p-6f))),
                         _mm256_set1_epi32(0x7F800000));
    const __m256 magic = _mm256_castsi256_ps(_mm256_add_epi32(power, _mm256_set1_epi32(20 << 23)));
    const __m256 value = _mm256_sub_ps(_mm256_add_ps(a, magic), magic);
    const __m256i magnitude =
        _mm256_srli_epi32(_mm256_castps_si256(_mm256_mul_ps(value, _mm256_set1_ps(0x1p-120f))), 20);

    const __m256i high = _mm256_srli_epi32(_mm256_castps_si256(sign), 24);
    const __m256i code = _mm256_or_si256(_mm256_or_si256(magnitude, high),
                                         _mm256_srli_epi32(_mm256_castps_si256(nan), 31));
    const __m128i words =
        _mm_packus_epi32(_mm256_castsi256_si128(code), _mm256_extracti128_si256(code, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(codes + i), _mm_packus_epi16(words, words));
    sums.add(i / 8 % 2, _mm256_mul_ps(w, sums.factor),
             _mm256_mul_ps(_mm256_or_ps(value, sign), factor));
  }
  return sums.total();
}

// Calls fn with a constant of the type.
template <class Fn>
auto with_type(DType type, Fn fn) {
  switch (type) {
    case DType::kF32:
      return fn(std::integral_constant<DType, DType::kF32>());
    case DType::kF16:
      return fn(std::integral_constant<DType, DType::kF16>());
    default:
      return fn(std::integral_constant<DType, DType::kBF16>());
  }
}

constexpr RowLoops kAvx2RowLoops = {
    .amax =
        [](DType type, const void* stored, int64_t count) {
          const auto elements = static_cast<int64_t>(4 * 32 / size_of(type));
          const int64_t vectors = count / elements;
          const float most =
              with_type(type, [&](auto t) { return amax<t.value>(stored, vectors); });
          const int64_t done = vectors * elements;
          const float rest = kPortableRowLoops.amax(type, at(type, stored, done), count - done);
          return most >= rest || most != most ? most : rest;
        },
    .errors =
        [](const EncodedBlocks& e) {
          SquaredErrors total;
          const int64_t size = block_size(e.format), step = kElements / size;
          for (int64_t b = 0; b < e.blocks; b += step) {
            EncodedBlocks part = e;
            part.stored = at(e.dtype, e.stored, b * size);
            part.codes += b * size / 2;
            part.scales += b;
            part.blocks = std::min(step, e.blocks - b);
            total += with_type(e.dtype, [&](auto t) { return errors<t.value>(part); });
          }
          return total;
        },
    .encode_e4m3 =
        [](DType type, const void* stored, float scale, int64_t count, uint8_t* codes) {
          SquaredErrors total;
          const int64_t whole = count / 8 * 8;
          for (int64_t i = 0; i < whole; i += kElements) {
            total += with_type(type, [&](auto t) {
              return encode_e4m3<t.value>(at(type, stored, i), scale,
                                          std::min(kElements, whole - i), codes + i);
            });
          }
          total += kPortableRowLoops.encode_e4m3(type, at(type, stored, whole), scale,
                                                 count - whole, codes + whole);
          return total;
        }};

}  // namespace

const RowLoops& row_loops(const CpuFeatures& cpu) {
  return cpu.avx2 ? kAvx2RowLoops : kPortableRowLoops;
}

}  // namespace nibble
