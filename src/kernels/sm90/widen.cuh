// A lane's part of a block -> A registers, and their products.
#pragma once

#include "kernels/cuda/mma.cuh"
#include "kernels/sm90/widen.h"

namespace nibble::sm90 {

// In which order, of which ptxas keeps some: kScales takes 2 % of a GEMM of 128 tokens less than
// kCodes, kScalesAndRest 1.5 % less again where one warpgroup multiplies so many, of 40 that were
// timed.
enum class WidenFirst { kCodes, kScales, kScalesAndRest };

// Steps 2i and 2i + 1 of a block: a[0..4) and a[4..8), products of code and scale times 2^-7.
template <Wide kWide, WidenFirst kFirst = WidenFirst::kCodes>
__device__ __forceinline__ void widen_pair(uint32_t first, uint32_t second, uint32_t scale_word,
                                           uint32_t (&a)[8]) {
  constexpr bool kF16 = kWide == Wide::kF16;
  constexpr bool kRestFirst = kFirst == WidenFirst::kScalesAndRest;
  uint32_t both[2];
  if (kFirst != WidenFirst::kCodes) {
    both[kRestFirst] = widen_scales<kWide>(scale_word, kRestFirst);
    both[!kRestFirst] = widen_scales<kWide>(scale_word, !kRestFirst);
  }
  widen_codes<kWide, kRestFirst>(first, second, a);
#pragma unroll
  for (int step = 0; step < 2; ++step) {
    const uint32_t scales =
        kFirst == WidenFirst::kCodes ? widen_scales<kWide>(scale_word, step) : both[step];
#pragma unroll
    for (int r = 0; r < 4; r += 2) {
      uint32_t* pair = a + 4 * step + r;
      pair[0] = cuda::multiply_pair_by<kF16, false>(pair[0], scales);
      pair[1] = cuda::multiply_pair_by<kF16, true>(pair[1], scales);
    }
  }
}

}  // namespace nibble::sm90
