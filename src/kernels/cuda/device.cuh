// Small device functions that kernels of every architecture share. What an older chip has no
// instruction for is written out, with the same result.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>
#include <utility>

#include "formats/e4m3.h"

namespace nibble::cuda {

// Programmatic dependent launch. wait: everything that earlier kernels wrote is visible behind it.
// trigger: the next kernel may start once every block has come here; best behind the last load.
__device__ __forceinline__ void pdl_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void pdl_trigger() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// x is computed here and kept, not earlier, later or again where the compiler would have it.
__device__ __forceinline__ void compute_now(int& x) { asm volatile("" : "+r"(x)); }
__device__ __forceinline__ void compute_now(uint32_t& x) { asm volatile("" : "+r"(x)); }
__device__ __forceinline__ void compute_now(int64_t& x) { asm volatile("" : "+l"(x)); }
__device__ __forceinline__ void compute_now(float& x) { asm volatile("" : "+f"(x)); }

// fn.operator()<0>(), ..., fn.operator()<kCount - 1>(), where `#pragma unroll` will not do: nvcc
// leaves it be in a loop that votes, for one.
template <int kCount, class Fn>
__device__ __forceinline__ void for_each(const Fn& fn) {
  [&]<int... kIndex>(std::integer_sequence<int, kIndex...>) {
    (fn.template operator()<kIndex>(), ...);
  }
  (std::make_integer_sequence<int, kCount>());
}

// x, which all 32 lanes hold, in a register of the warp's. What is worked out from it the compiler
// then knows to be the same in all lanes.
__device__ __forceinline__ int uniform(int x) { return __reduce_max_sync(~0u, x); }

// A kernel's parameter in a register from here on, where the compiler would read it from the
// constant cache at each use, 40 clocks. For blocks of one dimension.
template <class T>
__device__ __forceinline__ T in_register(const T& parameter) {
  return (&parameter)[threadIdx.y];  // 0, which it can't foresee
}

// prmt.b32 with every mode bit of the selector (the intrinsic drops the sign replication).
__device__ __forceinline__ uint32_t permute_bytes(uint32_t a, uint32_t b, uint32_t selector) {
  uint32_t out;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(selector));
  return out;
}

// float_to_e4m3_satfinite in hardware where there is some.
__device__ __forceinline__ uint8_t fast_e4m3(float value) {
#if __CUDA_ARCH__ >= 890
  uint16_t pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(0.0f), "f"(value));
  return static_cast<uint8_t>(pair);
#else
  return float_to_e4m3_satfinite(value);
#endif
}

// e4m3_to_float of a code below kE4m3Nan: its bits in a float's place, the bias made up for by an
// exact product, subnormals included.
__device__ __forceinline__ float fast_e4m3_to_float(uint8_t code) {
  return __uint_as_float(static_cast<uint32_t>(code) << 20) * 0x1p120f;
}

// Two of any codes as two halves, exactly, NaN included.
__device__ __forceinline__ uint32_t fast_e4m3x2_to_halves(uint16_t codes) {
#if __CUDA_ARCH__ >= 890
  uint32_t halves;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(codes));
  return halves;
#else
  const __half2 halves = __floats2half2_rn(e4m3_to_float(static_cast<uint8_t>(codes)),
                                           e4m3_to_float(static_cast<uint8_t>(codes >> 8)));
  return reinterpret_cast<const uint32_t&>(halves);
#endif
}

}  // namespace nibble::cuda
