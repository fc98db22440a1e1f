// Writing D, of every type.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/sm90/gemm_params.h"

namespace nibble::sm90 {

template <class T>
__device__ __forceinline__ void store_as(const Output& out, int64_t token, int64_t row,
                                         float value) {
  if (out.c != nullptr) {
    value += static_cast<float>(static_cast<const T*>(out.c)[token * out.c_stride + row]);
  }
  static_cast<T*>(out.d)[token * out.d_stride + row] = static_cast<T>(value);
}

__device__ __forceinline__ void store_output(const Output& out, int64_t token, int64_t row,
                                             float value) {
  switch (out.type) {
    case OutputType::kF32:
      return store_as<float>(out, token, row, value);
    case OutputType::kBF16:
      return store_as<__nv_bfloat16>(out, token, row, value);
    case OutputType::kF16:
      return store_as<__half>(out, token, row, value);
  }
}

// Two neighbours of a 16-bit type in a word.
__device__ __forceinline__ float2 unpack_pair(OutputType type, uint32_t word) {
  if (type == OutputType::kF16) return __half22float2(reinterpret_cast<const __half2&>(word));
  return {__uint_as_float(word << 16), __uint_as_float(word & 0xFFFF0000u)};
}
__device__ __forceinline__ uint32_t pack_pair(OutputType type, float low, float high) {
  if (type == OutputType::kF16) {
    const __half2 pair = __floats2half2_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  }
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const uint32_t&>(pair);
}

// Four rows of a token, from one that is a multiple of four on; D and C are aligned to 16 bytes at
// row 0.
__device__ __forceinline__ void store_four(const Output& out, int64_t token, int64_t row,
                                           float (&x)[4]) {
  const int64_t d = token * out.d_stride + row, c = token * out.c_stride + row;
  if (out.type == OutputType::kF32) {
    if (out.c != nullptr) {
      const float4 more = *reinterpret_cast<const float4*>(static_cast<const float*>(out.c) + c);
      x[0] += more.x;
      x[1] += more.y;
      x[2] += more.z;
      x[3] += more.w;
    }
    *reinterpret_cast<float4*>(static_cast<float*>(out.d) + d) =
        make_float4(x[0], x[1], x[2], x[3]);
    return;
  }
  if (out.c != nullptr) {
    const uint2 more = *reinterpret_cast<const uint2*>(static_cast<const uint16_t*>(out.c) + c);
    const float2 low = unpack_pair(out.type, more.x), high = unpack_pair(out.type, more.y);
    x[0] += low.x;
    x[1] += low.y;
    x[2] += high.x;
    x[3] += high.y;
  }
  *reinterpret_cast<uint2*>(static_cast<uint16_t*>(out.d) + d) =
      make_uint2(pack_pair(out.type, x[0], x[1]), pack_pair(out.type, x[2], x[3]));
}

}  // namespace nibble::sm90
