// Sixteen adjacent elements of a row, as they lie in memory: what one thread quantizes.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/cuda/device.cuh"
#include "nibble/types.h"

namespace nibble::cuda {

// Lane by lane the operand of larger magnitude, with any sign; NaN if one is NaN.
template <DType kType>
__device__ __forceinline__ uint32_t larger_pair(uint32_t a, uint32_t b) {
  uint32_t out;
  if constexpr (kType == DType::kBF16) {
#if __CUDA_ARCH__ >= 860
    asm("max.NaN.xorsign.abs.bf16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
#else
    asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(out) : "r"(a & 0x7FFF7FFFu), "r"(b & 0x7FFF7FFFu));
#endif
  } else {
#if __CUDA_ARCH__ >= 860
    asm("max.NaN.xorsign.abs.f16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
#else
    asm("max.NaN.f16x2 %0, %1, %2;" : "=r"(out) : "r"(a & 0x7FFF7FFFu), "r"(b & 0x7FFF7FFFu));
#endif
  }
  return out;
}

// Lane by lane the sum, rounded once. One in fp32 that is rounded after gives the same (all pairs
// of either type were tried): where fp32 is inexact the smaller operand is far below half a place
// of the larger, and no tie is near. It takes seven instructions a pair.
template <DType kType>
__device__ __forceinline__ uint32_t pair_sum(uint32_t a, uint32_t b) {
  uint32_t out;
  if constexpr (kType == DType::kBF16) {
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(0x3F803F80u), "r"(b));
  } else {
    asm("add.rn.f16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
  }
  return out;
}

// kF32, kBF16 or kF16; kF8E4M3 below.
template <DType kType>
struct Elements16 {
  static constexpr int kBytes = 16 * static_cast<int>(size_of(kType));
  static constexpr bool kWide = kType == DType::kF32;
  uint4 words[kBytes / 16];

  // p: aligned to 16 bytes.
  __device__ __forceinline__ void load(const uint8_t* p) {
#pragma unroll
    for (int i = 0; i < kBytes / 16; ++i) words[i] = reinterpret_cast<const uint4*>(p)[i];
  }

  __device__ __forceinline__ void store(uint8_t* p) const {
#pragma unroll
    for (int i = 0; i < kBytes / 16; ++i) reinterpret_cast<uint4*>(p)[i] = words[i];
  }

  template <int kIndex>
  __device__ __forceinline__ uint32_t word() const {
    const uint4& w = words[kIndex / 4];
    return kIndex % 4 == 0 ? w.x : kIndex % 4 == 1 ? w.y : kIndex % 4 == 2 ? w.z : w.w;
  }

  template <int kIndex>
  __device__ __forceinline__ float get() const {
    if constexpr (kWide) {
      return __uint_as_float(word<kIndex>());
    } else {
      const uint32_t pair = word<kIndex / 2>();
      if constexpr (kType == DType::kBF16) {
        return __uint_as_float(kIndex % 2 ? pair & 0xFFFF0000u : pair << 16);
      } else {
        const float2 both = __half22float2(reinterpret_cast<const __half2&>(pair));
        return kIndex % 2 ? both.y : both.x;
      }
    }
  }

  // Bits of the largest magnitude as a float's; above 0x7F800000 if there is a NaN. kCount: of the
  // first 8 alone, or of all 16.
  template <int kCount = 16>
  __device__ __forceinline__ uint32_t amax_bits() const {
    if constexpr (kWide) {
      uint32_t amax = 0;
#pragma unroll
      for (const uint4& w : words) {
        const uint32_t low = max(w.x & 0x7FFFFFFFu, w.y & 0x7FFFFFFFu);
        const uint32_t high = max(w.z & 0x7FFFFFFFu, w.w & 0x7FFFFFFFu);
        amax = max(amax, max(low, high));
      }
      return amax;
    } else {
      const auto four = [](const uint4& w) {
        return larger_pair<kType>(larger_pair<kType>(w.x, w.y), larger_pair<kType>(w.z, w.w));
      };
      Elements16 best;
      best.words[0].x =
          kCount == 8 ? four(words[0]) : larger_pair<kType>(four(words[0]), four(words[1]));
      return max(__float_as_uint(best.template get<0>()) & 0x7FFFFFFFu,
                 __float_as_uint(best.template get<1>()) & 0x7FFFFFFFu);
    }
  }

  // Bit 3 of nibble i: the sign of element 8 * kHalf + i.
  template <int kHalf>
  __device__ __forceinline__ uint32_t signs() const {
    if constexpr (kWide) {
      uint32_t all = 0;
      const uint4& low = words[2 * kHalf];
      const uint4& high = words[2 * kHalf + 1];
      const uint32_t last_to_first[8] = {high.w, high.z, high.y, high.x,
                                         low.w,  low.z,  low.y,  low.x};
#pragma unroll
      for (const uint32_t w : last_to_first) all = __funnelshift_l(w, all, 4);
      return all & 0x88888888u;
    } else {
      const uint4& w = words[kHalf];
      // Upper bytes: of even elements in bytes 0 and 1, of odd ones in 2 and 3.
      const uint32_t first = permute_bytes(w.x, w.y, 0x7351);
      const uint32_t second = permute_bytes(w.z, w.w, 0x7351);
      const uint32_t even = permute_bytes(first, second, 0xDC98);  // signs, replicated
      const uint32_t odd = permute_bytes(first, second, 0x7632);
      return (even & 0x08080808u) | (odd & 0x80808080u);
    }
  }
};

// Element by element, rounded to their type.
template <DType kType>
__device__ __forceinline__ Elements16<kType> sum_of(const Elements16<kType>& a,
                                                    const Elements16<kType>& b) {
  const auto sum = [](uint32_t x, uint32_t y) {
    if constexpr (kType == DType::kF32) {
      return __float_as_uint(__fadd_rn(__uint_as_float(x), __uint_as_float(y)));
    } else {
      return pair_sum<kType>(x, y);
    }
  };
  Elements16<kType> out;
#pragma unroll
  for (int i = 0; i < Elements16<kType>::kBytes / 16; ++i) {
    const uint4 x = a.words[i], y = b.words[i];
    out.words[i] = make_uint4(sum(x.x, y.x), sum(x.y, y.y), sum(x.z, y.z), sum(x.w, y.w));
  }
  return out;
}

// e4m3 on the way: as halves, which hold it exactly and are half the work to take signs and amax
// of, times a scale, which rounds in fp32 and keeps the order of magnitudes.
struct ScaledHalves16 {
  Elements16<DType::kF16> halves;
  float scale;

  template <int kIndex>
  __device__ __forceinline__ float get() const {
    return __fmul_rn(halves.get<kIndex>(), scale);
  }
  __device__ __forceinline__ uint32_t amax_bits() const {
    return __float_as_uint(__fmul_rn(__uint_as_float(halves.amax_bits()), scale));
  }
  template <int kHalf>
  __device__ __forceinline__ uint32_t signs() const {
    return halves.signs<kHalf>();
  }
};

template <>
struct Elements16<DType::kF8E4M3> {
  static constexpr int kBytes = 16;
  uint4 words[1];

  __device__ __forceinline__ void load(const uint8_t* p) {
    words[0] = *reinterpret_cast<const uint4*>(p);
  }

  __device__ __forceinline__ ScaledHalves16 scaled(float scale) const {
    const auto low = [](uint32_t w) { return fast_e4m3x2_to_halves(static_cast<uint16_t>(w)); };
    const auto high = [](uint32_t w) {
      return fast_e4m3x2_to_halves(static_cast<uint16_t>(w >> 16));
    };
    const uint4& w = words[0];
    ScaledHalves16 out;
    out.halves.words[0] = make_uint4(low(w.x), high(w.x), low(w.y), high(w.y));
    out.halves.words[1] = make_uint4(low(w.z), high(w.z), low(w.w), high(w.w));
    out.scale = scale;
    return out;
  }
};

}  // namespace nibble::cuda
