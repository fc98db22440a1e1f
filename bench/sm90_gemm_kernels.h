// What bench_sm90_gemm measures against.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace nibble::bench {

// Reads `bytes` from device memory, with about 128 KB a multiprocessor in flight: the floor.
void launch_stream_read(const void* from, size_t bytes, void* sink, int grid, cudaStream_t stream);
void launch_nothing(cudaStream_t stream);

// Canonical NVFP4 weights without alpha as bf16 or fp16, for cuBLAS.
void launch_widen(const uint8_t* codes, const uint8_t* scales, uint16_t* out, size_t n, bool fp16);

// out[m][count]: fp64 sums of every token with the given rows, times the rows' alpha.
void launch_reference(const uint8_t* codes, const uint8_t* scales, const float* alpha,
                      const uint16_t* a, const int* rows, int count, int k, int m, double* out);

}  // namespace nibble::bench
