// A lane's part of a block -> A registers, and their products.
#pragma once

#include "kernels/cuda/mma.cuh"
#include "kernels/sm90/widen.h"

namespace nibble::sm90 {

// Steps 2i and 2i + 1 of a block: a[0..4) and a[4..8), products of code and scale times 2^-7.
// kScalesFirst is an order, of which ptxas keeps some: of few warpgroups and less than 128 tokens
// a GEMM takes 2 % less with it, of others up to 4 % more.
template <Wide kWide, bool kScalesFirst = false>
__device__ __forceinline__ void widen_pair(uint32_t first, uint32_t second, uint32_t scale_word,
                                           uint32_t (&a)[8]) {
  constexpr bool kF16 = kWide == Wide::kF16;
  uint32_t both[2];
  if (kScalesFirst) {
    both[0] = widen_scales<kWide>(scale_word, 0);
    both[1] = widen_scales<kWide>(scale_word, 1);
  }
  widen_codes<kWide>(first, second, a);
#pragma unroll
  for (int step = 0; step < 2; ++step) {
    const uint32_t scales = kScalesFirst ? both[step] : widen_scales<kWide>(scale_word, step);
#pragma unroll
    for (int r = 0; r < 4; r += 2) {
      uint32_t* pair = a + 4 * step + r;
      pair[0] = cuda::multiply_pair_by<kF16, false>(pair[0], scales);
      pair[1] = cuda::multiply_pair_by<kF16, true>(pair[1], scales);
    }
  }
}

}  // namespace nibble::sm90
