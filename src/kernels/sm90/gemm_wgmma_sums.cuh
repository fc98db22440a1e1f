// How the blocks of a cluster add up the tile that they share, each a part of its k.
#pragma once

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/sm90/gemm_wgmma_work.h"

namespace nibble::sm90 {

// A warp's side of it. Unit u of the tokens is block u % split's: the others leave their sums of it
// in that block's shared memory, and it adds them in the order of blocks.
template <int kTokens>
struct SharedTile {
  static constexpr int kUnits = kTokens / unit_tokens(kTokens);
  static constexpr int kSums = unit_tokens(kTokens) / 2;  // of a unit, a lane's
  static constexpr int kBytes = unit_sums_bytes(kTokens);

  uint32_t sums;     // where the lane's sums of the first block's first unit are left
  uint32_t barrier;  // that they arrive at
  int split, rank, warps;
  int own;    // units that a block has memory for
  int units;  // that have tokens

  __device__ __forceinline__ uint32_t left_by(int from, int index) const {
    return sums + (from * own + index) * warps * kBytes;
  }

  __device__ __forceinline__ void give(int owner, int index, const float* sum) const {
    using namespace nibble::cuda;
    const uint32_t to = remote_address(left_by(rank - (rank > owner), index), owner);
    const uint32_t to_barrier = remote_address(barrier, owner);
#pragma unroll
    for (int i = 0; i < kSums / 4; ++i) store_remote(to + i * 512, sum + i * 4, to_barrier);
  }

  __device__ __forceinline__ void add(int from, int index, float* sum) const {
#pragma unroll
    for (int i = 0; i < kSums / 4; ++i) {
      const float4 more = cuda::load_shared_f32x4(left_by(from, index) + i * 512);
      sum[i * 4] += more.x;
      sum[i * 4 + 1] += more.y;
      sum[i * 4 + 2] += more.z;
      sum[i * 4 + 3] += more.w;
    }
  }

  // Two blocks: each lane selects which half of its sums it keeps, so that no unit has a branch of
  // its own, and what the other left is read at once.
  template <class Done>
  __device__ __forceinline__ void add_two(float* sum, Done done) const {
    const bool second = rank != 0;
    cuda::for_each<kUnits / 2>([&]<int i>() {
      float* const keep = sum + 2 * i * kSums;
      float* const given = keep + kSums;
#pragma unroll
      for (int j = 0; j < kSums; ++j) {
        const float even = keep[j], odd = given[j];
        keep[j] = second ? odd : even;
        given[j] = second ? even : odd;
      }
      if (2 * i + !second < units) give(!second, i, given);
    });
    cuda::mbarrier_wait(barrier, 0);
    cuda::for_each<kUnits / 2>([&]<int i>() { add(0, i, sum + 2 * i * kSums); });
    cuda::for_each<kUnits / 2>([&]<int i>() { done(2 * i + second, i, sum + 2 * i * kSums); });
  }

  // done(unit, index, its sums) for each unit that is the block's; of two blocks, also for those
  // behind the last token.
  template <class Done>
  __device__ __forceinline__ void add_all(float* sum, Done done) const {
    if (split == 2) return add_two(sum, done);
    int owner = 0, index = 0;
    const auto next_unit = [&] {
      if (++owner == split) {
        owner = 0;
        ++index;
      }
    };
#pragma unroll
    for (int u = 0; u < kUnits; ++u, next_unit()) {
      if (u < units && owner != rank) give(owner, index, sum + u * kSums);
    }
    cuda::mbarrier_wait(barrier, 0);
    owner = index = 0;
#pragma unroll
    for (int u = 0; u < kUnits; ++u, next_unit()) {
      if (u >= units || owner != rank) continue;
#pragma unroll 1
      for (int from = 0; from < split - 1; ++from) add(from, index, sum + u * kSums);
      done(u, index, sum + u * kSums);
    }
  }
};

}  // namespace nibble::sm90
