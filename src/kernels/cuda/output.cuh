// What the GEMMs' writing of D has in common.
#pragma once

#include <cstdint>

#include "kernels/cuda/activation.cuh"

namespace nibble::cuda {

// D of type T at one place, C added. Output has d, c (null: none) and their strides.
template <class T, class Output>
__device__ __forceinline__ void store_as(const Output& out, int64_t token, int column,
                                         float value) {
  if (out.c != nullptr) {
    value += static_cast<float>(static_cast<const T*>(out.c)[token * out.c_stride + column]);
  }
  static_cast<T*>(out.d)[token * out.d_stride + column] = static_cast<T>(value);
}

}  // namespace nibble::cuda
