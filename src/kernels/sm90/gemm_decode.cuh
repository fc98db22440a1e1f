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
// to clear, the same bits on every run. Warps that have their rows to themselves write them out.
//
// What lost: bulk copies by one thread (0.3 us to wait and issue each), register rings, sums
// through global memory, one more slot of the ring under way.
#pragma once

#include <type_traits>

#include "kernels/cuda/async_copy.cuh"
#include "kernels/sm90/output.cuh"
#include "kernels/sm90/widen.cuh"

namespace nibble::sm90 {

// i / divisor for i below 2^20, given 1 / divisor: half of one keeps off whole numbers by more than
// the product's error.
__device__ __forceinline__ int quotient(int i, float inverse) {
  return static_cast<int>((static_cast<float>(i) + 0.5f) * inverse);
}

template <int kTokenTiles, int kRowTiles, int kStages, int kMaxThreads, Wide kWide>
__global__ void __launch_bounds__(kMaxThreads, 1) decode_gemm(const DecodeParams p) {
  using namespace nibble::cuda;
  extern __shared__ __align__(128) uint8_t shared[];
  const int lane = threadIdx.x, warp_n = threadIdx.y, warp_k = threadIdx.z;
  const int warp = warp_k * p.warps_n + warp_n, thread = warp * 32 + lane;
  const int warps_k = 1 << p.warps_k_log2, cluster = 1 << p.cluster_log2;
  const int threads = p.warps_n * warps_k * 32, g = lane / 4, t = lane % 4;
  const int rank = blockIdx.x & (cluster - 1), tile = blockIdx.x >> p.cluster_log2;
  const uint32_t base = shared_address(shared), barrier = base;
  const int k_begin = p.all_k * rank >> p.cluster_log2;
  const int k_end = p.all_k * (rank + 1) >> p.cluster_log2;
  const int own_rows = p.own_rows, own_first = tile * own_rows * cluster + rank * own_rows;
  const int pair_tokens = (p.m + 1) / 2 * 2, slots = cluster * warps_k;
  const bool alone = slots == 1;  // no sums of others

  // The ring, addressed as this lane sees it. Rows below n's last are read from what follows (the
  // layout ends with kTailBytes) and not written out.
  constexpr int kSlotBytes = kRowTiles * kBlockBytes;
  const uint32_t ring = base + p.at.ring + warp * (kStages * kSlotBytes) + lane * 16;
  const uint32_t ring_end = ring + kStages * kSlotBytes;
  const int to_scales = kBlockCodeBytes - lane * 12;
  const int steps = (k_end - k_begin - warp_k + warps_k - 1) >> p.warps_k_log2;
  const int64_t k_step = p.k_stride << p.warps_k_log2;
  const uint8_t* source = p.weights + (k_begin + warp_k) * p.k_stride +
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

  if (!alone) {
    if (thread == 0) {
      mbarrier_init(barrier, 1);
      fence_mbarrier_init();
      mbarrier_expect(barrier, slots * own_rows * pair_tokens * 4);
    }
    __syncwarp();
    if (cluster > 1) cluster_arrive();
  }

  // Activations before the ring, for everyone waits for them, unless the weights can come while
  // another kernel still makes the activations.
  if (p.weights_first) fill_ring();
  wait_for_previous_kernel();
  {
    const int chunks = (k_end - k_begin) * (kBlockK / 8), total = chunks * p.m;
    const float per_token = __fdividef(1.0f, static_cast<float>(chunks));
    // Blocks start in different places, or all would ask the same slice of L2 at once.
    const int turn = static_cast<int>(__umulhi(tile * 0x9E3779B9u, total)) & ~7;
    for (int i = thread; i < total; i += threads) {
      const int j = i + turn < total ? i + turn : i + turn - total;
      const int token = quotient(j, per_token), chunk = j - token * chunks;
      const int k = k_begin * kBlockK + chunk * 8;
      cp_async_16(base + p.at.activations + token * p.at.activation_stride + chunk * 16,
                  p.a + token * p.a_stride + min(k, p.k - 8), k < p.k ? 16 : 0);
    }
    // Factors of a row: what its sums are multiplied by, and what is added.
    const int last_row = (p.n + kBlockRows - 1) / kBlockRows * kBlockRows - 1;
    const bool biased = p.out.bias != nullptr;
    const float* bias = biased ? p.out.bias : p.row_alpha;
    for (int i = thread; i < own_rows; i += threads) {
      const int row = own_first + i, logical = min(logical_row(p.out, row), p.n - 1);
      cp_async_4(base + p.at.factors + i * 8, p.row_alpha + min(row, last_row));
      cp_async_4(base + p.at.factors + i * 8 + 4, bias + logical, biased ? 4 : 0);
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
    token_at[i] = base + p.at.activations +
                  min(i * 8 + lane % 8, p.m - 1) * p.at.activation_stride + warp_k * (kBlockK * 2) +
                  lane / 8 * 16;
  }
  // Batches of loads ahead of their use and, where registers allow, two chains of sums: with two to
  // four warps a scheduler, latencies show.
  constexpr int kBatch = kTokenTiles == 1 ? 4 : 2;
  constexpr int kChains = kRowTiles * kTokenTiles <= 2 ? 2 : 1;
  float sum[kChains][kRowTiles][kTokenTiles][4] = {};
  uint32_t slot = ring;
  const int to_step_scales = kBlockCodeBytes + g * 16 - lane * 16;
  const int token_step = kBlockK * 2 << p.warps_k_log2;
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
          widen_pair<kWide>(pair % 2 ? c.z : c.x, pair % 2 ? c.w : c.y, (&scales[r].x)[pair], a);
#pragma unroll
          for (int i = 0; i < kTokenTiles; ++i) {
            mma<kWide == Wide::kF16>(sum[0][r][i], a, b[j][i][0], b[j][i][1]);
            mma<kWide == Wide::kF16>(sum[kChains - 1][r][i], a + 4, b[j][i][2], b[j][i][3]);
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

  // y of a row of the block's own, for two tokens.
  const float scale = sum_scale(p.out);
  const auto scaled = [&](int row, float2 sums) -> float2 {
    const float2 f = load_shared_f32x2(base + p.at.factors + row * 8);
    return {fmaf(sums.x, f.x * scale, f.y), fmaf(sums.y, f.x * scale, f.y)};
  };
  // Row `row` of the own ones; with SiLU-mul a row of gate, `up` that of row + 8.
  const auto write = [&](int token, int row, float2 y, float2 up) {
    int column = own_first + row;
    if (p.out.silu_mul) {
      column = column / kBlockRows * 8 + column % 8;
      y = {silu(y.x) * up.x, silu(y.y) * up.y};
    }
    if (column >= p.out.columns || token >= p.m) return;
    store_output(p.out, token, column, y.x);
    if (token + 1 < p.m) store_output(p.out, token + 1, column, y.y);
  };
  if (alone) {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      const int row = (warp_n * kRowTiles + r) * kBlockRows + g;
#pragma unroll
      for (int i = 0; i < kTokenTiles; ++i) {
        const float* x = sum[0][r][i];
        const int token = i * 8 + 2 * t;
        const float2 upper = scaled(row, {x[0], x[1]}), lower = scaled(row + 8, {x[2], x[3]});
        write(token, row, upper, lower);
        if (!p.out.silu_mul) write(token, row + 8, lower, lower);
      }
    }
    return;
  }

  // Slot s of the owner: own_rows x pair_tokens sums. (st.async faults outside of a cluster.)
  if (cluster > 1) cluster_wait();
  const int my_slot = rank * warps_k + warp_k;
#pragma unroll
  for (int half = 0; half < 2 * kRowTiles; ++half) {
    const int row = warp_n * (kRowTiles * kBlockRows) + half * 8;
    int owner = 0;
    while (row >= (owner + 1) * own_rows) ++owner;
    uint32_t to = base + p.at.sums +
                  ((my_slot * own_rows + row - owner * own_rows + g) * pair_tokens + 2 * t) * 4;
    uint32_t to_barrier = barrier;
    if (cluster > 1) {
      to = remote_address(to, owner);
      to_barrier = remote_address(barrier, owner);
    }
#pragma unroll
    for (int i = 0; i < kTokenTiles; ++i) {
      const float* pair = &sum[0][half / 2][i][half % 2 * 2];
      if (i * 8 + 2 * t >= p.m) continue;
      if (cluster > 1) {
        store_remote(to + i * 32, pair[0], pair[1], to_barrier);
      } else {
        store_shared(to + i * 32, pair[0], pair[1]);
      }
    }
  }
  if (cluster > 1) {
    mbarrier_wait(barrier, 0);
  } else {
    __syncthreads();
  }
  const auto add_up = [&](int row, int token) {
    float2 total = {0.0f, 0.0f};
    const uint32_t from = base + p.at.sums + (row * pair_tokens + token) * 4;
#pragma unroll 4
    for (int s = 0; s < slots; ++s) {
      const float2 part = load_shared_f32x2(from + s * own_rows * pair_tokens * 4);
      total.x += part.x;
      total.y += part.y;
    }
    return scaled(row, total);
  };
  const int columns = p.out.silu_mul ? own_rows / 2 : own_rows;
  const float per_pair = __fdividef(1.0f, static_cast<float>(columns));
  for (int i = thread; i < columns * (pair_tokens / 2); i += threads) {
    const int pair = quotient(i, per_pair), column = i - pair * columns;
    const int row = p.out.silu_mul ? column / 8 * kBlockRows + column % 8 : column;
    const float2 y = add_up(row, pair * 2);
    write(pair * 2, row, y, p.out.silu_mul ? add_up(row + 8, pair * 2) : y);
  }
}

}  // namespace nibble::sm90
