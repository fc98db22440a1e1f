// Element-wise ops in front of quantization, in fp32 and rounded to the activations' type as the
// ops by themselves round.
#pragma once

#include <cstdint>

#include "formats/float16.h"
#include "kernels/cuda/elements.cuh"

namespace nibble::cuda {

// Each function is off by two places of fp32 at most; below -88, where silu is under 1e-36, the
// exponential is infinite and the result zero. (A division that rounds is a call.)
__device__ __forceinline__ float silu(float x) {
  constexpr float kMinusLog2E = -1.4426950408889634f;
  float power, sigmoid;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x * kMinusLog2E));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(sigmoid) : "f"(1.0f + power));
  return x * sigmoid;
}
__device__ __forceinline__ float silu_mul(float gate, float up) { return silu(gate) * up; }

// What is left of x in a type.
template <DType kType>
__device__ __forceinline__ float rounded(float x) {
  if constexpr (kType == DType::kBF16) return bf16_to_float(float_to_bf16(x));
  if constexpr (kType == DType::kF16) return fp16_to_float(float_to_fp16(x));
  return x;
}

// The word that holds elements 2i and 2i + 1 of a 16-bit type.
template <DType kType>
__device__ __forceinline__ uint32_t packed(float even, float odd) {
  uint32_t word;
  if constexpr (kType == DType::kBF16) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(odd), "f"(even));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(odd), "f"(even));
  }
  return word;
}

// Sixteen values of a 16-bit type that only quantization reads, not as in memory: in each half
// words of elements 0 2, 4 6, 1 3, 5 7, so that their signs take four instructions, not six.
template <DType kType>
struct Activations16 {
  Elements16<kType> pairs;

  template <int kIndex>
  __device__ __forceinline__ float get() const {
    constexpr int kIn = kIndex % 8;
    return pairs.template get<kIndex / 8 * 8 + kIn % 2 * 4 + kIn / 2>();
  }
  __device__ __forceinline__ uint32_t amax_bits() const { return pairs.amax_bits(); }
  template <int kHalf>
  __device__ __forceinline__ uint32_t signs() const {
    const uint4& w = pairs.words[kHalf];
    const uint32_t even = permute_bytes(w.x, w.y, 0xFDB9);  // signs of upper bytes, replicated
    const uint32_t odd = permute_bytes(w.z, w.w, 0xFDB9);
    return (even & 0x08080808u) | (odd & 0x80808080u);
  }
};

// Sixteen elements, element i of them fn.operator()<i>(), rounded to kType.
template <DType kType, class Fn>
__device__ __forceinline__ Elements16<kType> elements_of(const Fn& fn) {
  Elements16<kType> out;
  const auto four = [&]<int kWord>() {
    if constexpr (kType == DType::kF32) {
      return make_uint4(__float_as_uint(fn.template operator()<4 * kWord>()),
                        __float_as_uint(fn.template operator()<4 * kWord + 1>()),
                        __float_as_uint(fn.template operator()<4 * kWord + 2>()),
                        __float_as_uint(fn.template operator()<4 * kWord + 3>()));
    } else {
      constexpr int k = 8 * kWord;
      return make_uint4(
          packed<kType>(fn.template operator()<k>(), fn.template operator()<k + 1>()),
          packed<kType>(fn.template operator()<k + 2>(), fn.template operator()<k + 3>()),
          packed<kType>(fn.template operator()<k + 4>(), fn.template operator()<k + 5>()),
          packed<kType>(fn.template operator()<k + 6>(), fn.template operator()<k + 7>()));
    }
  };
  out.words[0] = four.template operator()<0>();
  out.words[1] = four.template operator()<1>();
  if constexpr (kType == DType::kF32) {
    out.words[2] = four.template operator()<2>();
    out.words[3] = four.template operator()<3>();
  }
  return out;
}

// The same for quantize_unit alone.
template <DType kType, class Fn>
__device__ __forceinline__ auto activations_of(const Fn& fn) {
  if constexpr (kType == DType::kF32) {
    return elements_of<kType>(fn);
  } else {
    return Activations16<kType>{elements_of<kType>(
        [&]<int i>() { return fn.template operator()<i / 8 * 8 + i % 4 * 2 + i % 8 / 4>(); })};
  }
}

}  // namespace nibble::cuda
