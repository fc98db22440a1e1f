// The decode GEMM: few tokens, so time is the reading of the weights once.
//
// A warp takes kRowTiles blocks of 16 rows and walks down k; its codes and scales come through a
// ring of cp.async copies of its own, so the loads of a multiprocessor never wait for its slowest
// warp. The activations of the block's slice of k lie in shared memory as they came, rows padded
// by 16 bytes against bank conflicts. They come before the weights, or wait behind all of the ring:
// where there are many, only those of the first steps, and the rest while these are under way; the
// block meets once for each part.
//
// k is split over the warps of a block (warps_k) and over the blocks of a cluster; each block owns
// an equal share of the cluster's row tiles. Every warp sends its sums to the owner's shared memory
// by st.async, into a slot of its own, and a warp of the owner adds up a tile's slots in order: no
// atomics, no memory to clear, the same bits on every run. Sums stay as mma has them, a lane's four
// of rows g and g + 8 and tokens 2t and 2t + 1. Warps that have their rows to themselves write them
// out at once.
//
// A block lives for three microseconds and more, so what can be known before the loop is computed
// before it, while the first weights are on their way.
//
// What lost: bulk copies by one thread (0.3 us to wait and issue each; of the activations by a warp
// of its own, behind the others' rings: 0.05 to 0.7 us), multicast of the activations, register
// rings, sums through global memory, one more slot of the ring under way.
#pragma once

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/sm90/output.cuh"
#include "kernels/sm90/widen.cuh"

namespace nibble::sm90 {

// A lane's part of a tile to place `to` of D, `c` beside it: y[0] and y[1] are two tokens of a
// column, y[2] and y[3] of the column eight further; as far as there are tokens and columns.
template <class T>
__device__ __forceinline__ void write_lane(const Output& out, int64_t to, const T* c, int tokens,
                                           int columns, const float (&y)[4]) {
  T* d = static_cast<T*>(out.d) + to;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int token = i % 2, column = i / 2 * 8;
    if (token >= tokens || column >= columns) continue;
    float value = y[i];
    if (c != nullptr) value += static_cast<float>(c[token * out.c_stride + column]);
    d[token * out.d_stride + column] = static_cast<T>(value);
  }
}

template <int kTokenTiles, int kRowTiles, int kStages, int kMaxThreads, Wide kWide>
__global__ void __launch_bounds__(kMaxThreads, 1) decode_gemm(const DecodeParams p) {
  using namespace nibble::cuda;
  extern __shared__ __align__(128) uint8_t shared[];
  const int lane = threadIdx.x, warp = threadIdx.y, g = lane / 4, t = lane % 4;
  const int warps_k = 1 << p.warps_k_log2, cluster = 1 << p.cluster_log2;
  const int warp_n = warp >> p.warps_k_log2, warp_k = warp & (warps_k - 1);
  const int rank = blockIdx.x & (cluster - 1), tile = blockIdx.x >> p.cluster_log2;
  const int k_begin = p.all_k * rank >> p.cluster_log2;
  const int k_end = p.all_k * (rank + 1) >> p.cluster_log2;
  const int warps = p.warps_n << p.warps_k_log2, slots = warps_k << p.cluster_log2;
  const uint32_t base = shared_address(shared), barrier = base;

  // The ring, addressed as this lane sees it. Rows below n's last are read from what follows (the
  // layout ends with kTailBytes) and not written out.
  constexpr int kSlotBytes = kRowTiles * kBlockBytes;
  const uint32_t ring = base + p.ring_at + warp * (kStages * kSlotBytes) + lane * 16;
  const uint32_t ring_end = ring + kStages * kSlotBytes;
  const int steps = (k_end - k_begin - warp_k + warps_k - 1) >> p.warps_k_log2;
  const int64_t k_step = int64_t{p.k_stride} << p.warps_k_log2;
  const uint8_t* source = p.weights + int64_t{k_begin + warp_k} * p.k_stride +
                          int64_t{tile * p.warps_n + warp_n} * kSlotBytes + lane * 16;
  const bool takes_scales = lane < kBlockScaleBytes / 16;
  const auto fetch = [&](bool any, uint32_t to) {
#pragma unroll
    for (int r = 0; r < kSlotBytes; r += kBlockBytes) {
      cp_async_16_if(any, to + r, source + r);
      cp_async_16_if(any, to + r + 512, source + r + 512);
      cp_async_16_if(any && takes_scales, to + r + kBlockCodeBytes, source + r + kBlockCodeBytes);
    }
    source += k_step;
  };
  // A group of copies for each slot; the last is left open.
  const auto fill_ring = [&] {
#pragma unroll 1
    for (int s = 0; s < kStages - 1; ++s) {
      if (s > 0) cp_async_commit();
      fetch(s < steps, ring + s * kSlotBytes);
    }
  };
  // Bytes [begin, end) of every token's slice of k. A warp takes a part of a token, and blocks
  // start with different tokens, or all would ask the same slice of L2 at once.
  const auto copy_activations = [&](int begin, int end) {
    const int parts = max(warps >> p.tokens_log2, 1);
    const int valid = (p.k - k_begin * kBlockK) * 2;
#pragma unroll 1
    for (int i = warp; i < parts << p.tokens_log2; i += warps) {
      const int token = (i + tile) & ((1 << p.tokens_log2) - 1);
      if (token >= p.m) continue;
      const auto* from =
          reinterpret_cast<const uint8_t*>(p.a + token * p.a_stride + k_begin * kBlockK);
      const uint32_t to = base + kActivationsAt + token * p.activation_stride;
#pragma unroll 2
      for (int at = begin + (i >> p.tokens_log2) * 512 + lane * 16; at < end; at += parts * 512) {
        cp_async_16(to + at, from + min(at, valid - 16), at < valid ? 16 : 0);
      }
    }
  };

  // Activations before the ring, for everyone waits for them, unless the weights can come while
  // another kernel still makes the activations.
  const int slice_bytes = (k_end - k_begin) * (kBlockK * 2);
  const int first_bytes = min(slice_bytes, p.first_steps << p.warps_k_log2 << 8);
  static_assert(kBlockK * 2 == 1 << 8);
  if (p.weights_first) fill_ring();
  wait_for_previous_kernel();
  copy_activations(0, first_bytes);
  cp_async_commit();
  if (!p.weights_first) fill_ring();
  copy_activations(first_bytes, slice_bytes);
  cp_async_commit();
  if (cluster > 1) {
    if (warp == 0 && lane == 0) {
      mbarrier_init(barrier, 1);
      fence_mbarrier_init();
      mbarrier_expect(barrier, slots * p.own_tiles * ((p.m + 1) / 2) * 128);
    }
    __syncwarp();
    cluster_arrive();
  }

  // What this warp will write: its own tiles where it is alone with them, or one of the block's
  // (there are fewer than warps then). Factors of a row: what its sums are multiplied by, and what
  // is added.
  const bool alone = slots == 1;
  const int write_tile =
      tile * (p.warps_n * kRowTiles) + (alone ? warp * kRowTiles : rank * p.own_tiles + warp);
  const float scale = sum_scale(p.out);
  float alpha[kRowTiles][2], bias[kRowTiles][2];
#pragma unroll
  for (int i = 0; i < kRowTiles * 2; ++i) {
    const int row = write_tile * kBlockRows + i * 8 + g;
    const int last_row = (p.n + kBlockRows - 1) / kBlockRows * kBlockRows - 1;
    alpha[i / 2][i % 2] = p.row_alpha[min(row, last_row)];
    bias[i / 2][i % 2] =
        p.out.bias == nullptr ? 0.0f : p.out.bias[min(logical_row(p.out, row), p.n - 1)];
  }
  const int tile_columns = p.out.silu_mul ? 8 : kBlockRows;
  const int write_column = write_tile * tile_columns + g;
  int64_t write_to = 2 * t * p.out.d_stride + write_column;
  compute_now(write_to);
  const auto write = [&](int r, int i, const float* x) {
    const float upper = alpha[r][0] * scale, lower = alpha[r][1] * scale;
    float y[4] = {fmaf(x[0], upper, bias[r][0]), fmaf(x[1], upper, bias[r][0]),
                  fmaf(x[2], lower, bias[r][1]), fmaf(x[3], lower, bias[r][1])};
    const int token = i * 8 + 2 * t, column = write_column + r * tile_columns;
    int columns = p.out.columns - column;
    if (p.out.silu_mul) {
      y[0] = silu(y[0]) * y[2];
      y[1] = silu(y[1]) * y[3];
      columns = min(columns, 8);
    }
    const auto write_as = [&](auto zero) {
      using T = decltype(zero);
      const T* c = static_cast<const T*>(p.out.c);
      if (c != nullptr) c += token * p.out.c_stride + column;
      write_lane<T>(p.out, write_to + i * 8 * p.out.d_stride + r * tile_columns, c, p.m - token,
                    columns, y);
    };
    if (p.out.type == OutputType::kBF16) return write_as(__nv_bfloat16());
    if (p.out.type == OutputType::kF16) return write_as(__half());
    write_as(float());
  };

  // A slot of the owner's memory has its tiles, a lane's four sums beside the next lane's.
  constexpr int kTileBytes = kTokenTiles * 512;
  const int slot_bytes = p.own_tiles * kTileBytes;
  uint32_t send_to[kRowTiles], send_barrier[kRowTiles];
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
    int index = warp_n * kRowTiles + r, owner = 0;
    for (; index >= p.own_tiles; index -= p.own_tiles) ++owner;
    send_to[r] =
        base + p.sums_at + (rank * warps_k + warp_k) * slot_bytes + index * kTileBytes + lane * 16;
    send_barrier[r] = barrier;
    if (cluster > 1) {
      send_to[r] = remote_address(send_to[r], owner);
      send_barrier[r] = remote_address(barrier, owner);
    }
    compute_now(send_to[r]);
    compute_now(send_barrier[r]);
  }

  // ldmatrix: lane i reads token i % 8, chunk i / 8 of four. Tokens beyond m repeat the last.
  uint32_t token_at[kTokenTiles];
#pragma unroll
  for (int i = 0; i < kTokenTiles; ++i) {
    token_at[i] = base + kActivationsAt + min(i * 8 + lane % 8, p.m - 1) * p.activation_stride +
                  warp_k * (kBlockK * 2) + lane / 8 * 16;
  }
  // Batches of loads ahead of their use and, where registers allow, two chains of sums: with two to
  // four warps a scheduler, latencies show.
  constexpr int kBatch = kTokenTiles == 1 ? 4 : 2;
  constexpr int kChains = kRowTiles * kTokenTiles <= 2 ? 2 : 1;
  float sum[kChains][kRowTiles][kTokenTiles][4] = {};
  uint32_t slot = ring, last_slot = ring_end - kSlotBytes;
  const int to_step_scales = kBlockCodeBytes + g * 16 - lane * 16;
  const int token_step = kBlockK * 2 << p.warps_k_log2;
  const auto step = [&](int left) {
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
        fetch(left > kStages - 1, last_slot);
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
    last_slot = slot;
    slot += kSlotBytes;
    if (slot == ring_end) slot = ring;
  };
  if (p.weights_first) {
    cp_async_wait<0>();
  } else {
    cp_async_wait<kStages - 1>();  // all but the ring's groups
  }
  __syncthreads();
  if (cluster > 1) cluster_wait();  // st.async faults outside of a cluster
  int left = steps;
  int until = p.weights_first ? min(steps, kStages - 1) : max(steps - p.first_steps, 0);
#pragma unroll 1
  for (;;) {
#pragma unroll 1
    for (; left > until; --left) step(left);
    if (until == 0) break;
    if (p.weights_first) {
      let_next_kernel_start();  // all loads are under way
    } else {
      __syncthreads();  // the rest of the activations: in the group of the ring's last slot
    }
    until = 0;
  }
  if constexpr (kChains == 2) {
#pragma unroll
    for (int i = 0; i < kRowTiles * kTokenTiles * 4; ++i)
      (&sum[0][0][0][0])[i] += (&sum[1][0][0][0])[i];
  }
  if (alone) {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int i = 0; i < kTokenTiles; ++i) write(r, i, sum[0][r][i]);
    }
    return;
  }

#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
    for (int i = 0; i < kTokenTiles; ++i) {
      const float* x = sum[0][r][i];
      if (i * 8 + 2 * t >= p.m) continue;
      if (cluster > 1) {
        store_remote(send_to[r] + i * 512, x, send_barrier[r]);
      } else {
        store_shared_16(send_to[r] + i * 512, {__float_as_uint(x[0]), __float_as_uint(x[1]),
                                               __float_as_uint(x[2]), __float_as_uint(x[3])});
      }
    }
  }
  if (cluster == 1) __syncthreads();
  if (warp >= p.own_tiles) return;
  if (cluster > 1) mbarrier_wait(barrier, 0);
#pragma unroll
  for (int i = 0; i < kTokenTiles; ++i) {
    if (i * 8 + 2 * t >= p.m) break;
    uint32_t from = base + p.sums_at + warp * kTileBytes + i * 512 + lane * 16;
    float4 total = load_shared_f32x4(from);
#pragma unroll 4
    for (int s = 1; s < slots; ++s) {
      from += slot_bytes;
      const float4 part = load_shared_f32x4(from);
      total.x += part.x;
      total.y += part.y;
      total.z += part.z;
      total.w += part.w;
    }
    const float x[4] = {total.x, total.y, total.z, total.w};
    write(0, i, x);
  }
}

}  // namespace nibble::sm90
