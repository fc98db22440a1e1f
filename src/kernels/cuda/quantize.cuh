// One thread's share of a block: sixteen elements to sixteen codes. The bits are those of
// formats/nvfp4.h and formats/mxfp4.h, which the rare cases call.
#pragma once

#include <cstdint>

#include "formats/float16.h"
#include "formats/mxfp4.h"
#include "formats/nvfp4.h"
#include "kernels/cuda/elements.cuh"

namespace nibble::cuda {

// Two ways to the same codes; a chip's own is E2m1Codes below. encode8: the codes of elements
// 8 * kHalf .. + 7, the first in the lowest nibble. None is NaN; without kClamp, |x| * factor < 7.
// kFused (not with kClamp): |x| * factor is not rounded by itself, which fused_product_rounds_alike
// says is the same.

// Rounding without a conversion instruction. For u = 2 |y|: a float from 2^24 on has an ulp of 2,
// below it of 1. So 2^24 - 4 + u rounds u to a whole number (codes 0 to 4 have steps of 1 in u),
// and 2^24 + u / 2 rounds it to a multiple of 4 there (codes 4 to 7 have steps of 2, then 4), ties
// to the even code both times. The smaller sum is the right one for every u below 14, and its bits
// count codes up from kCodeZero. Comparing with the seven midpoints took 1.7 times as long on H200,
// packed half arithmetic 1.1 times.
struct SoftwareE2m1 {
  static constexpr uint32_t kCodeZero = 0x4B7FFFFC;  // 2^24 - 4

  template <bool kClamp, bool kFused>
  static __device__ __forceinline__ uint32_t code_bits(float magnitude, float factor) {
    const float twice = factor + factor;
    if constexpr (kFused) {
      return __float_as_uint(fminf(__fmaf_rn(magnitude, twice, 16777212.0f),
                                   __fmaf_rn(magnitude, factor, 16777216.0f)));
    }
    float u = __fmul_rn(magnitude, twice);
    if constexpr (kClamp) u = fminf(u, 2 * kE2m1Max);
    return __float_as_uint(fminf(__fadd_rn(u, 16777212.0f), __fmaf_rn(u, 0.5f, 16777216.0f)));
  }

  template <int kHalf, bool kClamp, bool kFused = false, class Elements>
  static __device__ __forceinline__ uint32_t encode8(const Elements& x, float factor) {
    const auto code = [&]<int kIndex>() {
      return code_bits<kClamp, kFused>(fabsf(x.template get<8 * kHalf + kIndex>()), factor);
    };
    // One after the other: as a tree it waits less, and MXFP4 took 4 % longer.
    uint32_t sum = code.template operator()<7>();
    sum = sum * 16 + code.template operator()<6>();
    sum = sum * 16 + code.template operator()<5>();
    sum = sum * 16 + code.template operator()<4>();
    sum = sum * 16 + code.template operator()<3>();
    sum = sum * 16 + code.template operator()<2>();
    sum = sum * 16 + code.template operator()<1>();
    sum = sum * 16 + code.template operator()<0>();
    return sum - kCodeZero * 0x11111111u + x.template signs<kHalf>();
  }
};

#if defined(__CUDA_ARCH_FAMILY_SPECIFIC__) && __CUDA_ARCH__ >= 1000
// Blackwell's instruction, in the builds for a family (sm_100f, sm_120f) that may use it.
struct HardwareE2m1 {
  template <int kHalf, bool kClamp, bool kFused = false, class Elements>
  static __device__ __forceinline__ uint32_t encode8(const Elements& x, float factor) {
    const auto y = [&]<int kIndex>() {
      return __fmul_rn(x.template get<8 * kHalf + kIndex>(), factor);
    };
    uint32_t codes;
    asm("{\n"
        ".reg .b8 b0, b1, b2, b3;\n"
        "cvt.rn.satfinite.e2m1x2.f32 b0, %2, %1;\n"
        "cvt.rn.satfinite.e2m1x2.f32 b1, %4, %3;\n"
        "cvt.rn.satfinite.e2m1x2.f32 b2, %6, %5;\n"
        "cvt.rn.satfinite.e2m1x2.f32 b3, %8, %7;\n"
        "mov.b32 %0, {b0, b1, b2, b3};\n"
        "}"
        : "=r"(codes)
        : "f"(y.template operator()<0>()), "f"(y.template operator()<1>()),
          "f"(y.template operator()<2>()), "f"(y.template operator()<3>()),
          "f"(y.template operator()<4>()), "f"(y.template operator()<5>()),
          "f"(y.template operator()<6>()), "f"(y.template operator()<7>()));
    return codes;
  }
};
using E2m1Codes = HardwareE2m1;
#else
using E2m1Codes = SoftwareE2m1;
#endif

// One float divided by another, rounded to nearest: the approximate reciprocal and one correction.
// Exact for a numerator of 1 and for each of the 126 block scales as the divisor, as long as
// nothing leaves fp32's normal range; a division that covers all cases is a call.
inline constexpr float kMinUsualScale = 0x1p-90f;
inline constexpr float kMaxUsualScale = 0x1p90f;
__device__ __forceinline__ float usual_quotient(float numerator, float divisor) {
  float reciprocal;  // volatile: a branch around it for a scale of zero costs more than it does
  asm volatile("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(divisor));
  const float q = __fmul_rn(numerator, reciprocal);
  return __fmaf_rn(__fmaf_rn(-divisor, q, numerator), reciprocal, q);
}

struct QuantizedUnit {
  uint2 codes;
  uint32_t scale;
  bool rare;  // codes and scale are wrong: quantize_rare has the right ones
};

// Sixteen elements of a block. MXFP4: lanes 2i and 2i + 1 hold a block together, and all 32 lanes
// call this. A lane without elements is not `valid` and gets anything.
template <WeightFormat kFormat, bool kFused = false, class Elements>
__device__ __forceinline__ QuantizedUnit quantize_unit(const Elements& x, bool valid,
                                                       float encode_scale, Mxfp4ScaleRule rule) {
  constexpr bool kMx = kFormat == WeightFormat::kMxfp4;
  uint32_t amax_bits = x.amax_bits();
  if constexpr (kMx) amax_bits = max(amax_bits, __shfl_xor_sync(~0u, amax_bits, 1));
  const float amax = __uint_as_float(amax_bits);
  QuantizedUnit out;
  float factor;
  if constexpr (kMx) {
    const uint8_t scale = ue8m0_from_amax(amax, rule);
    out.scale = scale;
    factor = amax_bits == 0 ? 0.0f : ue8m0_reciprocal(scale);
    // Twice the factor of scale 0 is no float.
    out.rare = amax_bits >= 0x7F800000u || (scale == 0 && amax_bits != 0);
  } else {
    const uint8_t scale = fast_e4m3(nvfp4_ideal_scale(amax, encode_scale));
    out.scale = scale;
    factor = scale == 0 ? 0.0f : usual_quotient(encode_scale, fast_e4m3_to_float(scale));
    out.rare = !(amax * factor < 7.0f);
  }
  out.rare &= valid;
  out.codes = make_uint2(E2m1Codes::encode8<0, kMx, kFused>(x, factor),
                         E2m1Codes::encode8<1, kMx, kFused>(x, factor));
  return out;
}

template <DType kType>
__device__ float element(const uint8_t* block, int i) {
  if constexpr (kType == DType::kF32) return reinterpret_cast<const float*>(block)[i];
  if constexpr (kType == DType::kF8E4M3) return e4m3_to_float(block[i]);
  const uint16_t bits = reinterpret_cast<const uint16_t*>(block)[i];
  return kType == DType::kBF16 ? bf16_to_float(bits) : fp16_to_float(bits);
}

// Any values at all, slowly: NaN, Inf, a saturated or subnormal scale, a global scale that is not
// usual. `value(i)` makes the block's element i once more, so that the usual path keeps nothing for
// it. `unit`: which sixteen of the block's elements.
template <WeightFormat kFormat, class Value>
__device__ QuantizedUnit quantize_rare(const Value& value, int unit, float encode_scale,
                                       Mxfp4ScaleRule rule) {
  constexpr bool kMx = kFormat == WeightFormat::kMxfp4;
  constexpr int kBlock = kMx ? kMxfp4BlockSize : kNvfp4BlockSize;
  float amax = 0.0f;
#pragma unroll 1
  for (int i = 0; i < kBlock; ++i) {
    const float x = value(i);
    amax = fmaxf(amax, block_amax<1>(&x));
  }
  QuantizedUnit out = {};
  float factor;
  if constexpr (kMx) {
    const uint8_t scale = ue8m0_from_amax(amax, rule);
    out.scale = scale;
    factor = ue8m0_reciprocal(scale);
  } else {
    const uint8_t scale = float_to_e4m3_satfinite(nvfp4_ideal_scale(amax, encode_scale));
    out.scale = scale;
    factor = nvfp4_factor(scale, encode_scale);
  }
#pragma unroll 1
  for (int i = 15; i >= 0; --i) {
    out.codes.y = __funnelshift_l(out.codes.x, out.codes.y, 4);
    out.codes.x = out.codes.x << 4 | float_to_e2m1(value(unit * 16 + i) * factor);
  }
  return out;
}

}  // namespace nibble::cuda
