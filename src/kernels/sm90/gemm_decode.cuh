// The decode GEMM: few tokens, so time is the reading of the weights once.
//
// A warp takes kRowTiles blocks of 16 rows and walks down k; its codes and scales come through a
// ring of cp.async copies of its own, so no barrier stands in the main loop and the loads of a
// multiprocessor never wait for its slowest warp. The activations of the block's slice of k lie in
// shared memory as they came, rows padded by 16 bytes against bank conflicts.
//
// k is split over the warps of a block (warps_k) and over the blocks of a cluster; each block owns
// an equal share of the cluster's rows. Every warp sends its sums to the owner's shared memory by
// st.async, into a slot of its own, and the owner adds the slots in order: no atomics, no memory
// to clear, the same bits on every run.
//
// What lost: bulk copies by one thread (0.3 us to wait and issue each), register rings, sums
// through global memory.
#pragma once

#include <type_traits>

#include "kernels/cuda/async_copy.cuh"
#include "kernels/sm90/blocks.h"
#include "kernels/sm90/output.cuh"
#include "kernels/sm90/widen.cuh"

namespace nibble::sm90 {

constexpr int kDecodePad = 16;  // bytes behind each row of activations

// Where things lie in a block's shared memory, in bytes.
struct DecodeShared {
  int alpha, activations, activation_stride, ring, sums, bytes;

  __host__ __device__ DecodeShared(int m, int k, int warps_n, int warps_k, int cluster,
                                   int row_tiles, int stages) {
    const int blocks = static_cast<int>((k_blocks(k) + cluster - 1) / cluster);
    const int rows = warps_n * row_tiles * kBlockRows;
    alpha = 16;  // behind the barrier
    activations = alpha + (rows / cluster * 4 + 127) / 128 * 128;
    activation_stride = blocks * kBlockK * 2 + kDecodePad;
    ring = activations + (m * activation_stride + 127) / 128 * 128;
    sums = ring + warps_n * warps_k * stages * row_tiles * kBlockBytes;
    bytes = sums + warps_k * rows * ((m + 1) / 2 * 2) * 4;
  }
};

template <int kTokenTiles, int kRowTiles, int kStages, int kMaxThreads>
__global__ void __launch_bounds__(kMaxThreads, 1) decode_gemm(const DecodeParams p) {
  using namespace nibble::cuda;
  extern __shared__ __align__(128) uint8_t shared[];
  const DecodeShared at(p.m, p.k, p.warps_n, p.warps_k, p.cluster, kRowTiles, kStages);
  const int threads = p.warps_n * p.warps_k * 32;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int warp_n = warp % p.warps_n, warp_k = warp / p.warps_n;
  const int rank = blockIdx.x % p.cluster, tile = blockIdx.x / p.cluster;
  const uint32_t base = shared_address(shared), barrier = base;
  const int all_k = (p.k + kBlockK - 1) / kBlockK;
  const int all_rows = (p.n + kBlockRows - 1) / kBlockRows;
  const int k_begin = all_k * rank / p.cluster, k_end = all_k * (rank + 1) / p.cluster;
  const int rows = p.warps_n * kRowTiles * kBlockRows, own_rows = rows / p.cluster;
  const int first_row = tile * rows, own_first = first_row + rank * own_rows;
  const int pair_tokens = (p.m + 1) / 2 * 2, slots = p.cluster * p.warps_k;

  // The ring, addressed as this lane sees it. Rows below n's last are read from what follows (the
  // layout ends with kTailBytes) and not written out.
  constexpr int kSlotBytes = kRowTiles * kBlockBytes;
  const uint32_t ring = base + at.ring + warp * (kStages * kSlotBytes) + lane * 16;
  const uint32_t ring_end = ring + kStages * kSlotBytes;
  const int to_scales = kBlockCodeBytes - lane * 12;
  const int steps = (k_end - k_begin - warp_k + p.warps_k - 1) / p.warps_k;
  const int64_t k_stride = int64_t{all_rows} * kBlockBytes, k_step = p.warps_k * k_stride;
  const uint8_t* source = p.weights + (k_begin + warp_k) * k_stride +
                          int64_t{tile * p.warps_n + warp_n} * kSlotBytes + lane * 16;
  uint32_t fetch_to = ring;
  const auto fetch = [&] {
#pragma unroll
    for (int r = 0; r < kSlotBytes; r += kBlockBytes) {
      cp_async_16(fetch_to + r, source + r);
      cp_async_16(fetch_to + r + 512, source + r + 512);
      cp_async_4(fetch_to + r + to_scales, source + r + to_scales);
    }
    source += k_step;
    fetch_to += kSlotBytes;
    if (fetch_to == ring_end) fetch_to = ring;
  };
  const auto fill_ring = [&] {
#pragma unroll 1
    for (int s = 0; s < kStages - 1; ++s) {
      if (s < steps) fetch();
      cp_async_commit();
    }
  };

  if (threadIdx.x == 0) {
    mbarrier_init(barrier, 1);
    fence_mbarrier_init();
    mbarrier_expect(barrier, slots * own_rows * pair_tokens * 4);
  }
  __syncwarp();
  if (p.cluster > 1) cluster_arrive();

  // Activations before the ring, for everyone waits for them, unless the weights can come while
  // another kernel still makes the activations.
  if (p.weights_first) fill_ring();
  wait_for_previous_kernel();
  {
    const int chunks = (k_end - k_begin) * (kBlockK / 8), total = chunks * p.m;
    // Blocks start in different places, or all would ask the same slice of L2 at once.
    const int turn = static_cast<int>(static_cast<uint32_t>(tile) * 1032u % total);
    for (int i = threadIdx.x; i < total; i += threads) {
      const int j = i + turn < total ? i + turn : i + turn - total;
      const int token = j / chunks, chunk = j - token * chunks;
      const int k = k_begin * kBlockK + chunk * 8;
      cp_async_16(base + at.activations + token * at.activation_stride + chunk * 16,
                  p.a + token * p.a_stride + min(k, p.k - 8), k < p.k ? 16 : 0);
    }
    for (int i = threadIdx.x; i < own_rows; i += threads) {
      const int row = min(own_first + i, p.n - 1);
      cp_async_4(base + at.alpha + i * 4, p.row_alpha + row);
    }
    cp_async_commit();
  }
  if (p.weights_first) {
    cp_async_wait<0>();
  } else {
    fill_ring();
    cp_async_wait<kStages - 1>();
  }
  __syncthreads();

  // ldmatrix: lane i reads token i % 8, chunk i / 8 of four. Tokens beyond m repeat the last.
  uint32_t token_at[kTokenTiles];
#pragma unroll
  for (int i = 0; i < kTokenTiles; ++i) {
    token_at[i] = base + at.activations + min(i * 8 + lane % 8, p.m - 1) * at.activation_stride +
                  warp_k * (kBlockK * 2) + lane / 8 * 16;
  }
  // Batches of loads ahead of their use and, where registers allow, two chains of sums: with two to
  // four warps a scheduler, latencies show.
  constexpr int kBatch = kTokenTiles == 1 ? 4 : 2;
  constexpr int kChains = kRowTiles * kTokenTiles <= 2 ? 2 : 1;
  float sum[kChains][kRowTiles][kTokenTiles][4] = {};
  uint32_t slot = ring;
  const int to_step_scales = kBlockCodeBytes + g * 16 - lane * 16;
  const int token_step = p.warps_k * (kBlockK * 2);
  const auto step = [&](auto fetches) {
    cp_async_wait<kStages - 2>();
    __syncwarp();  // scales are read by other lanes than copied them
    uint4 codes[kRowTiles][2], scales[kRowTiles];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      codes[r][0] = load_shared_16(slot + r * kBlockBytes);
      scales[r] = load_shared_16(slot + r * kBlockBytes + to_step_scales);
      codes[r][1] = load_shared_16(slot + r * kBlockBytes + 512);
    }
#pragma unroll
    for (int first = 0; first < 4; first += kBatch) {
      uint32_t b[kBatch][kTokenTiles][4];
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
#pragma unroll
        for (int i = 0; i < kTokenTiles; ++i) {
          load_matrices(token_at[i] + (first + j) * 64, b[j][i]);
        }
      }
      if (first == 0) {
        if constexpr (decltype(fetches)::value)
          fetch();  // into the slot that the step before has read
        cp_async_commit();
      }
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
#pragma unroll
        for (int r = 0; r < kRowTiles; ++r) {
          const int pair = first + j;
          const uint4& c = codes[r][pair / 2];
          uint32_t a[8];
          widen_pair(pair % 2 ? c.z : c.x, pair % 2 ? c.w : c.y, (&scales[r].x)[pair], a);
#pragma unroll
          for (int i = 0; i < kTokenTiles; ++i) {
            mma_bf16(sum[0][r][i], a, b[j][i][0], b[j][i][1]);
            mma_bf16(sum[kChains - 1][r][i], a + 4, b[j][i][2], b[j][i][3]);
          }
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kTokenTiles; ++i) token_at[i] += token_step;
    slot += kSlotBytes;
    if (slot == ring_end) slot = ring;
  };
  int left = steps;
#pragma unroll 1
  for (; left > kStages - 1; --left) step(std::true_type());
  let_next_kernel_start();
#pragma unroll 1
  for (; left > 0; --left) step(std::false_type());
  cp_async_wait<0>();
  if constexpr (kChains == 2) {
#pragma unroll
    for (int i = 0; i < kRowTiles * kTokenTiles * 4; ++i)
      (&sum[0][0][0][0])[i] += (&sum[1][0][0][0])[i];
  }

  // Slot s of the owner: own_rows x pair_tokens sums. (st.async faults outside of a cluster.)
  if (p.cluster > 1) cluster_wait();
  const int my_slot = rank * p.warps_k + warp_k;
#pragma unroll
  for (int half = 0; half < 2 * kRowTiles; ++half) {
    const int row = warp_n * (kRowTiles * kBlockRows) + half * 8;
    const int owner = row / own_rows;
    uint32_t to = base + at.sums +
                  ((my_slot * own_rows + row - owner * own_rows + g) * pair_tokens + 2 * t) * 4;
    uint32_t to_barrier = barrier;
    if (p.cluster > 1) {
      to = remote_address(to, owner);
      to_barrier = remote_address(barrier, owner);
    }
#pragma unroll
    for (int i = 0; i < kTokenTiles; ++i) {
      const float* pair = &sum[0][half / 2][i][half % 2 * 2];
      if (i * 8 + 2 * t >= p.m) continue;
      if (p.cluster > 1) {
        store_remote(to + i * 32, pair[0], pair[1], to_barrier);
      } else {
        store_shared(to + i * 32, pair[0], pair[1]);
      }
    }
  }
  if (p.cluster > 1) {
    mbarrier_wait(barrier, 0);
  } else {
    __syncthreads();
  }
  for (int i = threadIdx.x; i < own_rows * (pair_tokens / 2); i += threads) {
    const int token = i / own_rows * 2, row = i % own_rows;
    float2 total = {0.0f, 0.0f};
    uint32_t from = base + at.sums + (row * pair_tokens + token) * 4;
#pragma unroll 4
    for (int s = 0; s < slots; ++s) {
      const float2 part = load_shared_f32x2(from + s * own_rows * pair_tokens * 4);
      total.x += part.x;
      total.y += part.y;
    }
    if (own_first + row >= p.n) continue;
    const float alpha = reinterpret_cast<const float*>(shared + at.alpha)[row] * kSumScale;
    store_output(p.out, token, own_first + row, total.x * alpha);
    if (token + 1 < p.m) store_output(p.out, token + 1, own_first + row, total.y * alpha);
  }
}

}  // namespace nibble::sm90
