// The portable dequantizer in AVX2. Functions carry the instruction set themselves; quantize.cc
// says why.
#include <immintrin.h>

#include "formats/e4m3.h"
#include "formats/ue8m0.h"
#include "kernels/cpu/quantize.h"
#include "kernels/cpu/quantize_rows.h"

#define NIBBLE_AVX2 __attribute__((target("avx2,fma,f16c")))

namespace nibble::cpu {
namespace {

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

}  // namespace

const DequantizeImpl kAvx2Dequantize = {
    .name = "cpu_avx2_dequantize",
    .can_implement =
        [](const DequantizeDesc& desc, const DeviceInfo& device) {
          const Support s = can_dequantize(desc, device);
          return s && !device.cpu.avx2 ? Support::no("needs AVX2, FMA and F16C") : s;
        },
    .launch =
        [](const DequantizeArgs& args, const KernelConfig&, Stream stream) {
          dequantize_rows(args, stream, {dequantize_blocks, narrow});
        }};

}  // namespace nibble::cpu
