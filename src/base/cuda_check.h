// Turns the CUDA runtime's return codes into nibble::Error. For files that are built with CUDA.
#pragma once

#include <cuda_runtime_api.h>

namespace nibble::cuda {

// Throws kDevice with `what` and the runtime's words, and clears the runtime's last error.
[[noreturn]] void fail_cuda(const char* what, cudaError_t status);

inline void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) [[unlikely]]
    fail_cuda(what, status);
}

}  // namespace nibble::cuda

#define NIBBLE_CUDA_CHECK(call) ::nibble::cuda::check((call), #call)
