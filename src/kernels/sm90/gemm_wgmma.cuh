// The prefill GEMM: from about 16 tokens up, where the tensor cores' time counts beside the
// reading.
//
// D is computed transposed: a tile is 64 rows of weights for each multiplying warpgroup x kTokens
// tokens. The weights are widened in registers and are wgmma's A operand; the activations are B,
// from shared memory. One warpgroup copies: a thread of it the weights, as one piece of memory
// for each 128 of k, another the activations, as boxes of 64 k x kTokens, both into a ring of
// slots.
//
// A block walks over whole tiles, or, where there are few (split > 1), a cluster shares one tile,
// each block a part of k: block r owns the r-th share of the tile's rows, every block sends it
// its sums by st.async, and the owner adds them in the order of blocks. Or (kMulticast) two blocks
// side by side have different rows and the same tokens, and each copies half of them to both.
//
// Whole tiles rarely come out even. Then the k of the first stream_tiles tiles, laid end to end, is
// cut into as many equal pieces as there are blocks: who begins inside a tile leaves its sums in
// the workspace for the block that began the tile, which adds them in order.
//
// What lost: that for few tiles too (sums through L2 take 6 us of a GEMM), one copying thread for
// both operands, two blocks a multiprocessor, ping-pong of the warpgroups.
#pragma once

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/wgmma.cuh"
#include "kernels/sm90/gemm_wgmma_work.h"
#include "kernels/sm90/output.cuh"
#include "kernels/sm90/widen.cuh"

namespace nibble::sm90 {

// Sixteen tokens x sixteen rows of a warp's accumulators; a lane writes eight neighbouring rows of
// one token. C comes in the same way, to be added before the one rounding. kPlain: bf16 without C,
// everything in pieces of 16 bytes: what nearly every call is, in a fraction of the instructions.
// With SiLU-mul the lane's rows g are gate and its rows g + 8 up: one piece of eight columns
// remains.
struct Factors {
  float alpha[2], bias[2];  // of rows g and g + 8
};
template <bool kPlain>
__device__ __forceinline__ void store_unit(const WgmmaParams& p, uint32_t unit, int lane, int token,
                                           int row, const Factors& by, float* x) {
  // Addresses worked out for each unit: held for all of them, they spill.
  if constexpr (!kPlain) asm volatile("" : "+r"(lane));
  const int g = lane / 4, t = lane % 4;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    x[i] =
        kPlain ? x[i] * by.alpha[i / 2 % 2] : fmaf(x[i], by.alpha[i / 2 % 2], by.bias[i / 2 % 2]);
  }
  const bool silu_mul = !kPlain && p.out.silu_mul;
  int column = row;
  if (silu_mul) {
    column = row / 2;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (i / 2 % 2 == 0) x[i] = silu(x[i]) * x[i + 2];
    }
  }
  if (!kPlain && p.out.type == OutputType::kF32) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int to = token + i / 4 * 8 + 2 * t + i % 2, at = column + g + i / 2 % 2 * 8;
      if (silu_mul && i / 2 % 2 == 1) continue;
      if (to < p.m && at < p.out.columns) store_as<float>(p.out, to, at, x[i]);
    }
    return;
  }
  // Both are rows of 32 bytes, a token each, halves swapped in every other four: no bank conflicts.
  const uint32_t piece = unit + lane / 2 * 32 + (lane ^ lane >> 3) % 2 * 16;
  const uint32_t matrix_row =
      unit + (lane / 16 * 8 + lane % 8) * 32 + (lane >> 3 ^ lane >> 2) % 2 * 16;
  token += lane / 2;
  column += lane % 2 * 8;
  const bool whole = p.wide_output && column + 8 <= p.out.columns;
  const bool inside = token < p.m && column < p.out.columns && !(silu_mul && lane % 2 == 1);
  __syncwarp();  // the unit before has been read
  uint32_t pairs[4];
  if (!kPlain && p.out.c != nullptr) {
    const uint16_t* c = static_cast<const uint16_t*>(p.out.c) + token * p.out.c_stride + column;
    if (inside && whole) {
      cuda::store_shared_16(piece, *reinterpret_cast<const uint4*>(c));
    } else {
#pragma unroll 1
      for (int i = 0; i < 8 && inside && column + i < p.out.columns; ++i)
        cuda::store_shared_u16(piece + 2 * i, c[i]);
    }
    __syncwarp();
    cuda::load_matrices_transposed(matrix_row, pairs);
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 more = unpack_pair(p.out.type, pairs[i]);
      x[2 * i] += more.x;
      x[2 * i + 1] += more.y;
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    pairs[i] = pack_pair(kPlain ? OutputType::kBF16 : p.out.type, x[2 * i], x[2 * i + 1]);
  }
  cuda::store_matrices_transposed(matrix_row, pairs);
  __syncwarp();
  if (!inside) return;
  uint16_t* d = static_cast<uint16_t*>(p.out.d) + token * p.out.d_stride + column;
  if constexpr (!kPlain) {
    if (!whole) {
#pragma unroll 1
      for (int i = 0; i < 8 && column + i < p.out.columns; ++i)
        d[i] = cuda::load_shared_u16(piece + 2 * i);
      return;
    }
  }
  *reinterpret_cast<uint4*>(d) = cuda::load_shared_16(piece);
}

// kPending: groups of two products under way while the next is widened.
template <int kTokens, int kMaxGroups, int kPending, bool kMulticast, Wide kWide>
__global__ void __launch_bounds__(kMaxGroups * 128 + 128, 1)
    wgmma_gemm(const __grid_constant__ CUtensorMap activations, const WgmmaParams p) {
  using namespace nibble::cuda;
  extern __shared__ __align__(1024) uint8_t shared[];
  constexpr bool kSplit = !kMulticast && kTokens <= kMaxSplitTokens;
  const int split = kSplit ? p.split : 1;  // blocks of a cluster that share a tile
  const WgmmaShared at(kTokens, p.groups, p.stages, split);
  const uint32_t base = shared_address(shared);
  const uint32_t full = base + at.barriers, empty = full + p.stages * 8;
  const uint32_t sums_barrier = empty + p.stages * 8;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = p.groups * 4;
  constexpr int kTileBlocks = kMulticast ? 2 : 1;  // blocks whose tiles are handed out together
  const bool clustered = kMulticast || split > 1;
  const int share = kMulticast ? 2 : split;  // blocks of a cluster
  const int rank = blockIdx.x % share;
  const int rows = p.groups * kGroupRows;
  const int token_tiles = (p.m + kTokens - 1) / kTokens;
  const int row_tiles = (p.n + rows * kTileBlocks - 1) / (rows * kTileBlocks);
  const int worker = blockIdx.x / share, workers = gridDim.x / share;
  const int all_k = (p.k + kBlockK - 1) / kBlockK;
  constexpr bool kStream = is_streamed(kTokens, kMaxGroups);
  const int tiles = token_tiles * row_tiles;
  using Parts = WgmmaParts<kStream>;
  // With one tile a cluster, the tokens of it that there are, in eights.
  const auto eights = [&](int token_tile) {
    return (min(kTokens, p.m - token_tile * kTokens) + 7) / 8;
  };

  if (threadIdx.x == 0) {
#pragma unroll 1
    for (int s = 0; s < p.stages; ++s) {
      mbarrier_init(full + s * 8, 2);  // the two copying threads
      mbarrier_init(empty + s * 8, warps * kTileBlocks);
    }
    mbarrier_init(sums_barrier, 1);
    fence_mbarrier_init();
    if (split > 1) {
      const WgmmaTile tile(worker, token_tiles, row_tiles);
      mbarrier_expect(sums_barrier, warps * eights(tile.token) * 512);
    }
  }
  __syncthreads();
  if (clustered) cluster_arrive();
  if (kMulticast) cluster_wait();

  if (warp >= warps) {
    fewer_registers<copy_registers(kMaxGroups)>();
    Parts part(p.stream_tiles, worker, workers, all_k);
    uint32_t slot = 0, parity = 1;
    const auto next_slot = [&] {
      if (++slot == p.stages) {
        slot = 0;
        parity ^= 1;
      }
    };
    if (warp == warps && lane == 0) {
      const int64_t k_stride = row_blocks(p.n) * kBlockBytes;
#pragma unroll 1
      while (part.next(split, workers, kSplit ? rank : 0, tiles, all_k)) {
        const WgmmaTile tile(part.tile, token_tiles, row_tiles);
        const int block = (tile.row_tile * kTileBlocks + (kMulticast ? rank : 0)) * warps;
        const uint8_t* from = p.weights + part.k_begin * k_stride + int64_t{block} * kBlockBytes;
#pragma unroll 1
        for (int k = part.k_begin; k < part.k_end; ++k) {
          mbarrier_wait(empty + slot * 8, parity);
          mbarrier_expect(full + slot * 8, at.slot_weights);
          bulk_copy(base + at.weights + slot * at.slot_weights, from, at.slot_weights,
                    full + slot * 8);
          from += k_stride;
          next_slot();
        }
      }
      let_next_kernel_start();
    } else if (warp == warps + 1 && lane == 0) {
      constexpr int kShare = kTokens / kTileBlocks;  // tokens that this block copies
      wait_for_previous_kernel();
#pragma unroll 1
      while (part.next(split, workers, kSplit ? rank : 0, tiles, all_k)) {
        const WgmmaTile tile(part.tile, token_tiles, row_tiles);
        const int half = kMulticast ? rank * kShare : 0;
#pragma unroll 1
        for (int k = part.k_begin; k < part.k_end; ++k) {
          mbarrier_wait(empty + slot * 8, parity);
          mbarrier_expect(full + slot * 8, at.slot_activations);
#pragma unroll
          for (int box = 0; box < 2; ++box) {
            const uint32_t to = base + slot * at.slot_activations + (box * kTokens + half) * 128;
            const int x = k * kBlockK + box * 64, y = tile.token * kTokens + half;
            if constexpr (kMulticast) {
              tensor_copy_multicast(to, &activations, x, y, full + slot * 8, 3);
            } else {
              tensor_copy(to, &activations, x, y, full + slot * 8);
            }
          }
          next_slot();
        }
      }
    }
  } else {
    more_registers<multiply_registers(kMaxGroups)>();
    Parts part(p.stream_tiles, worker, workers, all_k);
    const int g = lane / 4;
    // The blocks of 16 rows that this block of the cluster writes out, and the one of this warp.
    const int own_blocks = warps / split, own_block = warp % own_blocks;
    const uint32_t unit = base + at.units + warp * kUnitBytes;
    uint32_t slot = 0, parity = 0;
    const auto release = [&](uint32_t s) {
      if constexpr (kMulticast) {
        if (lane < 2) mbarrier_arrive_at(empty + s * 8, lane);
      } else {
        if (lane == 0) mbarrier_arrive(empty + s * 8);
      }
    };
#pragma unroll 1
    while (part.next(split, workers, kSplit ? rank : 0, tiles, all_k)) {
      const WgmmaTile tile(part.tile, token_tiles, row_tiles);
      const int first_row = (tile.row_tile * kTileBlocks + (kMulticast ? rank : 0)) * rows;
      const int own_row =
          first_row + ((kMulticast ? 0 : rank * own_blocks) + own_block) * kBlockRows;
      __syncwarp();
      {
        const int of = own_row + lane % kBlockRows, last = (p.n - 1) / kBlockRows * kBlockRows + 15;
        const bool biased = p.out.bias != nullptr, alpha = lane < kBlockRows;
        const float* from = p.row_alpha + min(of, last);
        if (!alpha && biased) from = p.out.bias + min(logical_row(p.out, of), p.n - 1);
        cp_async_4(unit + lane * 4, from, alpha || biased ? 4 : 0);
      }
      cp_async_commit();
      float sum[kTokens / 2] = {};
      uint4 codes[2], scales;
      const auto load = [&] {
        mbarrier_wait(full + slot * 8, parity);
        const uint32_t block =
            base + at.weights + slot * at.slot_weights + warp * kBlockBytes + lane * 16;
        codes[0] = load_shared_16(block);
        scales = load_shared_16(block + kBlockCodeBytes + g * 16 - lane * 16);
        codes[1] = load_shared_16(block + 512);
      };
      uint32_t last = 0;
      load();
#pragma unroll 1
      for (int k = part.k_begin; k < part.k_end; ++k) {
        // The same in all lanes, and known to be so: descriptors are then built once a warp.
        const uint32_t operand = __shfl_sync(~0u, operand_of(base + slot * at.slot_activations), 0);
        const uint32_t before = last;
        last = slot;
#pragma unroll
        for (int pair = 0; pair < 4; ++pair) {
          const uint4& c = codes[pair / 2];
          uint32_t a[8];
          widen_pair<kWide>(pair % 2 ? c.z : c.x, pair % 2 ? c.w : c.y, (&scales.x)[pair], a);
          const uint32_t b =
              operand + pair / 2 * (kTokens * 128 >> 4) + pair % 2 * (2 * kOperandStep16);
          wgmma_fence();
          wgmma<kWide == Wide::kF16, kTokens>(sum, a, b);
          wgmma<kWide == Wide::kF16, kTokens>(sum, a + 4, b + kOperandStep16);
          wgmma_commit();
          if (pair == 3) {
            if (++slot == p.stages) {
              slot = 0;
              parity ^= 1;
            }
            if (k + 1 < part.k_end) load();
          }
          wgmma_wait<kPending>();
          // All that read the slot before has ended.
          if (pair == kPending - 1 && k > part.k_begin) release(before);
        }
      }
      wgmma_wait<0>();
      release(last);
      cp_async_wait<0>();

      const int token = tile.token * kTokens;
      if constexpr (kStream) {
        const int threads = warps * 32, count = eights(tile.token);
        const auto left_by = [&](int block) {
          return reinterpret_cast<float4*>(p.parts) + int64_t{block} * (kTokens / 8) * threads +
                 threadIdx.x;
        };
        if (split == 1 && part.k_begin > 0) {
          float4* const out = left_by(blockIdx.x);
#pragma unroll
          for (int i = 0; i < kTokens / 8; ++i) {
            const float* s = sum + i * 4;
            if (i < count) __stcg(out + i * threads, make_float4(s[0], s[1], s[2], s[3]));
          }
          __threadfence();
          barrier_sync(1, threads);
          if (threadIdx.x == 0) store_release(p.flags + blockIdx.x, 1);
          continue;
        }
        const int tile_end = (part.tile + 1) * all_k;
#pragma unroll 1
        for (int w = worker + 1; split == 1 && part.k_end < all_k; ++w) {
          if (Parts::begin_of(p.stream_tiles, w, workers, all_k) >= tile_end) break;
          const int block = w * share + rank;
          if (threadIdx.x == 0) {
            while (load_acquire(p.flags + block) == 0) {
            }
          }
          barrier_sync(1, threads);
          const float4* const in = left_by(block);
#pragma unroll
          for (int i = 0; i < kTokens / 8; ++i) {
            if (i >= count) continue;
            const float4 more = __ldcg(in + i * threads);
            sum[i * 4] += more.x;
            sum[i * 4 + 1] += more.y;
            sum[i * 4 + 2] += more.z;
            sum[i * 4 + 3] += more.w;
          }
        }
      }
      wait_for_previous_kernel();  // which may have written C
      __syncwarp();
      const bool plain = p.wide_output && p.out.c == nullptr && p.out.bias == nullptr &&
                         !p.out.silu_mul && p.out.type == OutputType::kBF16 && p.n % 8 == 0;
      const float scale = sum_scale(p.out);
      const Factors by = {
          {load_shared_f32(unit + g * 4) * scale, load_shared_f32(unit + g * 4 + 32) * scale},
          {load_shared_f32(unit + g * 4 + 64), load_shared_f32(unit + g * 4 + 96)}};
      if (kSplit && split > 1) {
        const int count = eights(tile.token);
        const int owner = warp / own_blocks, part_bytes = own_blocks * (kTokens / 8) * 512;
        const uint32_t parts = base + at.parts + own_block * (kTokens / 8) * 512 + lane * 16;
        cluster_wait();  // the others have set up their barriers
        const uint32_t to = remote_address(parts + rank * part_bytes, owner);
        const uint32_t to_barrier = remote_address(sums_barrier, owner);
#pragma unroll
        for (int i = 0; i < kTokens / 8; ++i) {
          if (i < count) store_remote(to + i * 512, sum + i * 4, to_barrier);
        }
        mbarrier_wait(sums_barrier, 0);
#pragma unroll 1
        for (int i = 2 * owner; i < count; i += 2 * split) {
          float all[8] = {};
#pragma unroll 1
          for (int s = 0; s < split; ++s) {
#pragma unroll
            for (int eight = 0; eight < 2; ++eight) {
              const float4 more = load_shared_f32x4(parts + s * part_bytes + (i + eight) * 512);
              float* to = all + eight * 4;
              to[0] += more.x;
              to[1] += more.y;
              to[2] += more.z;
              to[3] += more.w;
            }
          }
          store_unit<false>(p, unit, lane, token + i * 8, own_row, by, all);
        }
      } else if (plain) {
#pragma unroll
        for (int i = 0; i < kTokens / kUnitTokens; ++i) {
          store_unit<true>(p, unit, lane, token + i * kUnitTokens, own_row, by, sum + i * 8);
        }
      } else {
#pragma unroll
        for (int i = 0; i < kTokens / kUnitTokens; ++i) {
          store_unit<false>(p, unit, lane, token + i * kUnitTokens, own_row, by, sum + i * 8);
        }
      }
    }
  }
  // Nobody leaves while another block may still copy to it or arrive at its barriers; of a shared
  // tile's blocks, the copying threads have yet to wait.
  if constexpr (kMulticast) {
    __syncwarp();
    cluster_arrive();
    cluster_wait();
  } else if (split > 1 && warp >= warps) {
    __syncwarp();
    cluster_wait();
  }
}

}  // namespace nibble::sm90
