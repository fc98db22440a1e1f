// How those add up a tile who share it, each a part of its k: k groups of warpgroups, and the
// blocks of a cluster.
#pragma once

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/sm90/gemm_wgmma_work.h"

namespace nibble::sm90 {

// A warp's side of it. Part p is k group p % kKGroups of block p / kKGroups. Unit u of the tokens
// is part u % parts': the others leave their sums of it in its shared memory (by st.async from
// another block), and it adds them in their order.
template <int kTokens, int kKGroups>
struct SharedTile {
  static constexpr int kUnits = tile_units(kTokens);
  static constexpr int kSums = unit_tokens(kTokens) / 2;  // of a unit, a lane's
  static constexpr int kBytes = unit_sums_bytes(kTokens);

  uint32_t sums;     // where the lane's sums of the first part's first unit are left for k group 0,
  uint32_t barrier;  // and the barrier that they arrive at; in one block, `block_barrier` of all
  int block_barrier, threads;
  int parts, part;
  int warps;  // of a k group
  int own;    // units that a part has memory for
  int units;  // that have tokens

  __device__ __forceinline__ int k_group_of(int p) const { return p % kKGroups; }
  __device__ __forceinline__ uint32_t barrier_of(int p) const {
    return barrier + k_group_of(p) * 8;
  }
  __device__ __forceinline__ uint32_t left_by(int from, int owner, int index) const {
    const int before = from - (from > owner) + k_group_of(owner) * (parts - 1);
    return sums + (before * own + index) * warps * kBytes;
  }

  __device__ __forceinline__ void give(int owner, int index, const float* sum) const {
    using namespace nibble::cuda;
    const uint32_t left = left_by(part, owner, index);
    if (one_block()) {  // where there is no cluster, st.async is illegal
#pragma unroll
      for (int i = 0; i < kSums / 4; ++i) {
        const float* s = sum + i * 4;
        store_shared_16(left + i * 512, make_uint4(__float_as_uint(s[0]), __float_as_uint(s[1]),
                                                   __float_as_uint(s[2]), __float_as_uint(s[3])));
      }
      return;
    }
    const int block = owner / kKGroups;
    const uint32_t to = remote_address(left, block);
    const uint32_t to_barrier = remote_address(barrier_of(owner), block);
#pragma unroll
    for (int i = 0; i < kSums / 4; ++i) store_remote(to + i * 512, sum + i * 4, to_barrier);
  }

  __device__ __forceinline__ bool one_block() const { return kKGroups > 1 && parts == kKGroups; }
  __device__ __forceinline__ void wait_for_sums() const {
    if (one_block()) {
      cuda::barrier_sync(block_barrier, threads);
    } else {
      cuda::mbarrier_wait(barrier_of(part), 0);
    }
  }

  __device__ __forceinline__ void add(int from, int index, float* sum) const {
#pragma unroll
    for (int i = 0; i < kSums / 4; ++i) {
      const float4 more = cuda::load_shared_f32x4(left_by(from, part, index) + i * 512);
      sum[i * 4] += more.x;
      sum[i * 4 + 1] += more.y;
      sum[i * 4 + 2] += more.z;
      sum[i * 4 + 3] += more.w;
    }
  }

  // Two parts: each lane selects which half of its sums it keeps, so that no unit has a branch of
  // its own, and what the other left is read at once. An odd unit is the first part's.
  template <class Done>
  __device__ __forceinline__ void add_two(float* sum, Done done) const {
    const bool second = part != 0;
    float* const last = sum + (kUnits - 1) * kSums;
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
    const bool own_last = kUnits % 2 == 1 && !second && kUnits <= units;
    if (kUnits % 2 == 1 && second && kUnits <= units) give(0, kUnits / 2, last);
    wait_for_sums();
    cuda::for_each<kUnits / 2>([&]<int i>() { add(!second, i, sum + 2 * i * kSums); });
    if (own_last) add(1, kUnits / 2, last);
    cuda::for_each<kUnits / 2>([&]<int i>() { done(i, sum + 2 * i * kSums); });
    if (own_last) done(kUnits / 2, last);
  }

  // done(index, its sums) for each unit that is the part's; of two parts, also for those behind the
  // last token. Unit part + index * parts: its sums stay in the place of unit index * 2 where there
  // are two parts, else in its own.
  template <class Done>
  __device__ __forceinline__ void add_all(float* sum, Done done) const {
    if (parts == 2) return add_two(sum, done);
    int owner = 0, index = 0;
    const auto next_unit = [&] {
      if (++owner == parts) {
        owner = 0;
        ++index;
      }
    };
#pragma unroll
    for (int u = 0; u < kUnits; ++u, next_unit()) {
      if (u < units && owner != part) give(owner, index, sum + u * kSums);
    }
    wait_for_sums();
    owner = index = 0;
#pragma unroll
    for (int u = 0; u < kUnits; ++u, next_unit()) {
      if (u >= units || owner != part) continue;
#pragma unroll 1
      for (int from = 0; from < parts; ++from) {
        if (from != part) add(from, index, sum + u * kSums);
      }
      done(index, sum + u * kSums);
    }
  }
};

// The same of a tile whose k is cut between blocks without a cluster: a thread's sums for the same
// thread of the block that adds them up.
template <int kTokens>
struct StreamedTile {
  float* parts;  // of all blocks
  uint64_t* flags;
  uint64_t launch;
  int threads;

  __device__ __forceinline__ float4* left_by(int block) const {
    return reinterpret_cast<float4*>(parts) + int64_t{block} * (kTokens / 8) * threads +
           threadIdx.x;
  }
  __device__ __forceinline__ void leave(int block, const float* sum) const {
    float4* const out = left_by(block);
    cuda::for_each<kTokens / 8>([&]<int i>() {
      const float* s = sum + i * 4;
      __stcg(out + i * threads, make_float4(s[0], s[1], s[2], s[3]));
    });
  }
  // Waits for the block's flag, which is cleared for the next replay of a graph.
  __device__ __forceinline__ void add(int block, int barrier, float* sum) const {
    if (threadIdx.x == 0) {
      while (cuda::load_acquire(flags + block) != launch) {
      }
      flags[block] = 0;
    }
    cuda::barrier_sync(barrier, threads);
    const float4* const in = left_by(block);
    cuda::for_each<kTokens / 8>([&]<int i>() {
      const float4 more = __ldcg(in + i * threads);
      sum[i * 4] += more.x;
      sum[i * 4 + 1] += more.y;
      sum[i * 4 + 2] += more.z;
      sum[i * 4 + 3] += more.w;
    });
  }
};

}  // namespace nibble::sm90
