// The one seam between chips: the block-scaled tensor core instruction of sm_120 and sm_121, or the
// same in plain arithmetic on any chip. Same registers in, same registers out.
#pragma once

#include "kernels/sm120/emulated_mma.h"

namespace nibble::sm120 {

// c[16, 8] += a[16, 64] * b[64, 8], each block of k times its two scales; fragments.h says who
// holds what. kIdA, kIdB: which of its lanes' scale words count.
template <WeightFormat kFormat_>
struct HardwareMma {
  static constexpr WeightFormat kFormat = kFormat_;

  template <int kIdA, int kIdB>
  static __device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4],
                                             const uint32_t (&b)[2], uint32_t scales_a,
                                             uint32_t scales_b) {
#define NIBBLE_BLOCK_SCALED_MMA(kind, scale)                                             \
  asm("mma.sync.aligned.m16n8k64.row.col." kind ".f32.e2m1.e2m1.f32." scale              \
      " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3},"                 \
      " {%10}, {0, %11}, {%12}, {0, %13};"                                               \
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                   \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(scales_a), \
        "n"(kIdA), "r"(scales_b), "n"(kIdB))
    if constexpr (kFormat == WeightFormat::kMxfp4) {
      NIBBLE_BLOCK_SCALED_MMA("kind::mxf4.block_scale.scale_vec::2X", "ue8m0");
    } else {
      NIBBLE_BLOCK_SCALED_MMA("kind::mxf4nvf4.block_scale.scale_vec::4X", "ue4m3");
    }
#undef NIBBLE_BLOCK_SCALED_MMA
  }
};

template <WeightFormat kFormat_>
struct EmulatedMma {
  static constexpr WeightFormat kFormat = kFormat_;

  struct Shuffles {
    uint4 a_words;
    uint2 b_words;
    uint32_t a_scales, b_scales;

    // Not arrays: `reg` is not known to the compiler.
    __device__ __forceinline__ uint32_t a(int lane, int reg) const {
      const uint32_t low = reg % 2 == 0 ? a_words.x : a_words.y;
      const uint32_t high = reg % 2 == 0 ? a_words.z : a_words.w;
      return __shfl_sync(~0u, reg < 2 ? low : high, lane);
    }
    __device__ __forceinline__ uint32_t b(int lane, int reg) const {
      return __shfl_sync(~0u, reg == 0 ? b_words.x : b_words.y, lane);
    }
    __device__ __forceinline__ uint32_t scales_a(int lane) const {
      return __shfl_sync(~0u, a_scales, lane);
    }
    __device__ __forceinline__ uint32_t scales_b(int lane) const {
      return __shfl_sync(~0u, b_scales, lane);
    }
  };

  // A call, unlike the instruction: a kernel has up to 32, and each would be hundreds of lines.
  static __device__ __noinline__ float4 multiply(float4 c, uint4 a, uint2 b, uint32_t scales_a,
                                                 uint32_t scales_b, int id_a, int id_b) {
    float sums[4] = {c.x, c.y, c.z, c.w};
    emulate_mma<kFormat>(Shuffles{a, b, scales_a, scales_b}, static_cast<int>(threadIdx.x % 32),
                         id_a, id_b, sums);
    return make_float4(sums[0], sums[1], sums[2], sums[3]);
  }

  template <int kIdA, int kIdB>
  static __device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4],
                                             const uint32_t (&b)[2], uint32_t scales_a,
                                             uint32_t scales_b) {
    const float4 sums =
        multiply(make_float4(c[0], c[1], c[2], c[3]), make_uint4(a[0], a[1], a[2], a[3]),
                 make_uint2(b[0], b[1]), scales_a, scales_b, kIdA, kIdB);
    c[0] = sums.x, c[1] = sums.y, c[2] = sums.z, c[3] = sums.w;
  }
};

}  // namespace nibble::sm120
