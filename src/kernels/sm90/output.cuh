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

// Eight rows of a token, from one that is a multiple of eight on; D and C are aligned to 16 bytes
// there. Clobbers x.
__device__ __forceinline__ void store_eight(const Output& out, int64_t token, int64_t row,
                                            float (&x)[8]) {
  const bool wide = out.type == OutputType::kF32;
  const int size = wide ? 4 : 2;
  auto* to =
      reinterpret_cast<uint4*>(static_cast<uint8_t*>(out.d) + (token * out.d_stride + row) * size);
  if (out.c != nullptr) {
    const auto* from = reinterpret_cast<const uint4*>(static_cast<const uint8_t*>(out.c) +
                                                      (token * out.c_stride + row) * size);
    const uint4 first = from[0];
    if (wide) {
      const uint4 second = from[1];
      const uint32_t c[8] = {first.x,  first.y,  first.z,  first.w,
                             second.x, second.y, second.z, second.w};
#pragma unroll
      for (int i = 0; i < 8; ++i) x[i] += __uint_as_float(c[i]);
    } else {
      const uint32_t c[4] = {first.x, first.y, first.z, first.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 pair = unpack_pair(out.type, c[i]);
        x[2 * i] += pair.x;
        x[2 * i + 1] += pair.y;
      }
    }
  }
  uint32_t d[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) d[i] = __float_as_uint(x[i]);
  if (!wide) {
#pragma unroll
    for (int i = 0; i < 4; ++i) d[i] = pack_pair(out.type, x[2 * i], x[2 * i + 1]);
  }
  to[0] = make_uint4(d[0], d[1], d[2], d[3]);
  if (wide) to[1] = make_uint4(d[4], d[5], d[6], d[7]);
}

}  // namespace nibble::sm90
