// Warp-level tensor core instructions of sm_80 and later. lane = 4 g + t throughout.
#pragma once

#include <cstdint>

namespace nibble::cuda {

// Four 8 x 8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix i / 8 and
// receives elements 2t, 2t+1 of row g of each.
__device__ __forceinline__ void load_matrices(uint32_t from, uint32_t (&m)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(from));
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t from, uint32_t (&m)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(from)
               : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t from, uint32_t (&m)[2]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(m[0]), "=r"(m[1])
               : "r"(from)
               : "memory");
}
// The other way round, each matrix transposed.
__device__ __forceinline__ void store_matrices_transposed(uint32_t to, const uint32_t (&m)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to),
               "r"(m[0]), "r"(m[1]), "r"(m[2]), "r"(m[3])
               : "memory");
}
__device__ __forceinline__ void store_matrices_transposed(uint32_t to, const uint32_t (&m)[2]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(to),
               "r"(m[0]), "r"(m[1])
               : "memory");
}
__device__ __forceinline__ void store_matrices_transposed(uint32_t to, const uint32_t (&m)[1]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%0], {%1};" ::"r"(to), "r"(m[0])
               : "memory");
}

// d[16, 8] += a[16, 16] * b[16, 8], bf16 or fp16 in, fp32 sums. a: rows g, g+8 at k 2t, then at
// 2t + 8; b: column g, k 2t, then 2t + 8; d: row g columns 2t, 2t+1, then row g + 8.
#define NIBBLE_MMA(type)                                     \
  asm("mma.sync.aligned.m16n8k16.row.col.f32." type "." type \
      ".f32 {%0, %1, %2, %3},"                               \
      " {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"       \
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])       \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))
template <bool kF16>
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t* a, uint32_t b0, uint32_t b1) {
  if constexpr (kF16) {
    NIBBLE_MMA("f16");
  } else {
    NIBBLE_MMA("bf16");
  }
}
#undef NIBBLE_MMA

// A pair of bf16 or fp16 times the low or the high half of `scales`. What sm_80 can do to bf16 is
// multiply and add: here -0, which leaves every product as it is.
#if __CUDA_ARCH__ >= 900
#define NIBBLE_PRODUCT "mul.rn.bf16x2 %0, %1, both;"
#else
#define NIBBLE_PRODUCT "mov.b32 %0, 0x80008000;\n fma.rn.bf16x2 %0, %1, both, %0;"
#endif
#define NIBBLE_MULTIPLY(product_of, half)                                       \
  asm("{\n .reg .b16 low, high;\n .reg .b32 both;\n mov.b32 {low, high}, %2;\n" \
      " mov.b32 both, {" half ", " half "};\n " product_of "\n}"                \
      : "=&r"(product)                                                          \
      : "r"(pair), "r"(scales))
template <bool kF16, bool kHigh>
__device__ __forceinline__ uint32_t multiply_pair_by(uint32_t pair, uint32_t scales) {
  uint32_t product;
  if constexpr (kF16 && kHigh) {
    NIBBLE_MULTIPLY("mul.rn.f16x2 %0, %1, both;", "high");
  } else if constexpr (kF16) {
    NIBBLE_MULTIPLY("mul.rn.f16x2 %0, %1, both;", "low");
  } else if constexpr (kHigh) {
    NIBBLE_MULTIPLY(NIBBLE_PRODUCT, "high");
  } else {
    NIBBLE_MULTIPLY(NIBBLE_PRODUCT, "low");
  }
  return product;
}
#undef NIBBLE_MULTIPLY
#undef NIBBLE_PRODUCT

}  // namespace nibble::cuda
