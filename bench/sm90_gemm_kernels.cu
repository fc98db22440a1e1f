#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "bench/sm90_gemm_kernels.h"
#include "formats/e2m1.h"
#include "formats/e4m3.h"

namespace nibble::bench {
namespace {

// Reads n pieces of 16 bytes; 128 KB a multiprocessor in flight.
template <int kUnroll>
__global__ void __launch_bounds__(256) stream_read(const uint4* from, size_t n, uint4* out) {
  asm volatile("griddepcontrol.launch_dependents;");
  const size_t stride = size_t{gridDim.x} * blockDim.x;
  size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x;
  uint32_t x = 0;
  for (; i < n; i += kUnroll * stride) {
    uint4 v[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      if (i + u * stride < n) {
        asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v[u].x), "=r"(v[u].y), "=r"(v[u].z), "=r"(v[u].w)
                     : "l"(from + i + u * stride));
      } else {
        v[u] = {};
      }
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) x ^= v[u].x ^ v[u].y ^ v[u].z ^ v[u].w;
  }
  if (x == 0x12345u) out->x = x;
}

// Canonical weights widened, for cuBLAS.
template <class T>
__global__ void widen_all(const uint8_t* codes, const uint8_t* scales, T* out, size_t n) {
  for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < n;
       i += size_t{gridDim.x} * blockDim.x) {
    const uint8_t code = codes[i / 2] >> (i % 2 * 4) & 0xF;
    out[i] = static_cast<T>(e2m1_to_float(code) * e4m3_to_float(scales[i / 16]));
  }
}

// fp64 sums of the sampled rows: one block a (row, token).
__global__ void reference(const uint8_t* codes, const uint8_t* scales, const float* alpha,
                          const __nv_bfloat16* a, const int* rows, int k, int m, double* out) {
  const int row = rows[blockIdx.x];
  for (int token = threadIdx.x / 32; token < m; token += blockDim.x / 32) {
    double sum = 0.0;
    for (int j = threadIdx.x % 32; j < k; j += 32) {
      const size_t at = size_t(row) * k + j;
      const uint8_t code = codes[at / 2] >> (at % 2 * 4) & 0xF;
      sum += double(e2m1_to_float(code) * e4m3_to_float(scales[at / 16])) *
             double(__bfloat162float(a[size_t(token) * k + j]));
    }
    for (int o = 16; o > 0; o /= 2) sum += __shfl_xor_sync(~0u, sum, o);
    if (threadIdx.x % 32 == 0) out[size_t(token) * gridDim.x + blockIdx.x] = sum * alpha[row];
  }
}

__global__ void do_nothing() {}

}  // namespace

void launch_stream_read(const void* from, size_t bytes, void* sink, int grid, cudaStream_t stream) {
  stream_read<4><<<grid, 256, 0, stream>>>(static_cast<const uint4*>(from), bytes / 16,
                                           static_cast<uint4*>(sink));
}
void launch_nothing(cudaStream_t stream) { do_nothing<<<132, 256, 0, stream>>>(); }
void launch_widen(const uint8_t* codes, const uint8_t* scales, uint16_t* out, size_t n, bool fp16) {
  if (fp16) {
    widen_all<<<2048, 256>>>(codes, scales, reinterpret_cast<__half*>(out), n);
  } else {
    widen_all<<<2048, 256>>>(codes, scales, reinterpret_cast<__nv_bfloat16*>(out), n);
  }
}
void launch_reference(const uint8_t* codes, const uint8_t* scales, const float* alpha,
                      const uint16_t* a, const int* rows, int count, int k, int m, double* out) {
  reference<<<count, 512>>>(codes, scales, alpha, reinterpret_cast<const __nv_bfloat16*>(a), rows,
                            k, m, out);
}

}  // namespace nibble::bench
