// From sums to D: scales, bias, SiLU-mul, C, every type.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/output.cuh"
#include "kernels/sm90/blocks.h"
#include "kernels/sm90/gemm_params.h"
#include "kernels/sm90/widen.h"

namespace nibble::sm90 {

using cuda::silu;
using cuda::store_as;

// Row `row` of the weights as they lie in memory -> as the caller counts them (bias); see
// WeightTensor::gate_up.
__device__ __forceinline__ int logical_row(const Output& out, int row) {
  if (!out.silu_mul) return row;
  return row / kBlockRows * 8 + row % 8 + (row & 8 ? out.columns : 0);
}
// What the sums of the activations' units are multiplied by.
__device__ __forceinline__ float sum_scale(const Output& out) {
  return out.a_scale == nullptr ? kSumScale : *out.a_scale * kSumScale;
}

__device__ __forceinline__ void store_output(const Output& out, int64_t token, int column,
                                             float value) {
  switch (out.type) {
    case OutputType::kF32:
      return store_as<float>(out, token, column, value);
    case OutputType::kBF16:
      return store_as<__nv_bfloat16>(out, token, column, value);
    case OutputType::kF16:
      return store_as<__half>(out, token, column, value);
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

}  // namespace nibble::sm90
