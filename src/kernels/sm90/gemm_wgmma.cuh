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
// What lost: sums through global memory with flags (6 us of a GEMM), one copying thread for both
// operands, two blocks a multiprocessor, ping-pong of the warpgroups.
#pragma once

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/wgmma.cuh"
#include "kernels/sm90/blocks.h"
#include "kernels/sm90/output.cuh"
#include "kernels/sm90/widen.cuh"

namespace nibble::sm90 {

constexpr int kGroupRows = 64;   // of a warpgroup
constexpr int kGroupBlocks = 4;  // its blocks of 16 rows, one a warp
constexpr int kUnitTokens = 16;  // what a warp writes out at once, times 16 rows
constexpr int kUnitStride = 20;  // floats from one token to the next there: no bank conflicts
constexpr int kTokenGroup = 8;   // token tiles that take turns before the next rows: L2 keeps both

// Where things lie in a block's shared memory, in bytes: the ring's activations and weights, the
// parts of the tile that other blocks send, a unit for each warp, the barriers.
struct WgmmaShared {
  int slot_activations, slot_weights, weights, parts, units, barriers, bytes;

  __host__ __device__ WgmmaShared(int tokens, int groups, int stages, int split) {
    slot_activations = tokens * kBlockK * 2;
    slot_weights = groups * kGroupBlocks * kBlockBytes;
    weights = stages * slot_activations;
    parts = weights + stages * slot_weights;
    units = parts + (split > 1 ? groups * kGroupRows * tokens * 4 : 0);
    barriers = units + groups * kGroupBlocks * kUnitTokens * kUnitStride * 4;
    bytes = barriers + (2 * stages + 1) * 8;
  }
};

// Registers of a thread at the start, and of a multiplying one when the copying ones gave theirs.
NIBBLE_HD constexpr int copy_registers(int max_groups) { return max_groups <= 2 ? 40 : 32; }
NIBBLE_HD constexpr int start_registers(int max_groups) {
  return 65536 / (max_groups * 128 + 128) / 8 * 8;
}
NIBBLE_HD constexpr int multiply_registers(int max_groups) {
  return ((max_groups + 1) * start_registers(max_groups) - copy_registers(max_groups)) /
         max_groups / 8 * 8;
}

struct WgmmaTile {
  int token, row_tile;

  __device__ WgmmaTile(int tile, int token_tiles, int row_tiles) {
    const int per_group = kTokenGroup * row_tiles, group = tile / per_group;
    const int rest = tile - group * per_group;
    const int width = min(kTokenGroup, token_tiles - group * kTokenGroup);
    token = group * kTokenGroup + rest % width;
    row_tile = rest / width;
  }
};

// Sixteen tokens x sixteen rows from a warp's accumulators (of 8 tokens, then the next 8): through
// shared memory, so that a lane writes eight neighbouring rows of one token.
__device__ __forceinline__ void store_unit(const WgmmaParams& p, uint32_t unit, int lane, int token,
                                           int row, const float (&alpha)[2], const float* sum) {
  const int g = lane / 4, t = lane % 4;
  __syncwarp();  // the unit before has been read
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int in_unit = (i / 4 * 8 + 2 * t + i % 2) * kUnitStride + g + i / 2 % 2 * 8;
    cuda::store_shared(unit + in_unit * 4, sum[i] * alpha[i / 2 % 2]);
  }
  __syncwarp();
  token += lane / 2;
  row += lane % 2 * 8;
  if (token >= p.m || row >= p.n) return;
  const uint32_t from = unit + (lane / 2 * kUnitStride + lane % 2 * 8) * 4;
  if (p.wide_output && row + 8 <= p.n) {
    const float4 low = cuda::load_shared_f32x4(from), high = cuda::load_shared_f32x4(from + 16);
    float x[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    return store_eight(p.out, token, row, x);
  }
#pragma unroll 1
  for (int i = 0; i < 8 && row + i < p.n; ++i) {
    store_output(p.out, token, row + i, cuda::load_shared_f32(from + i * 4));
  }
}

// kPending: groups of two products under way while the next is widened.
template <int kTokens, int kMaxGroups, int kPending, bool kMulticast>
__global__ void __launch_bounds__(kMaxGroups * 128 + 128, 1)
    wgmma_gemm(const __grid_constant__ CUtensorMap activations, const WgmmaParams p) {
  using namespace nibble::cuda;
  extern __shared__ __align__(1024) uint8_t shared[];
  const WgmmaShared at(kTokens, p.groups, p.stages, p.split);
  const uint32_t base = shared_address(shared);
  const uint32_t full = base + at.barriers, empty = full + p.stages * 8;
  const uint32_t sums_barrier = empty + p.stages * 8;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = p.groups * 4;
  constexpr int kTileBlocks = kMulticast ? 2 : 1;  // blocks whose tiles are handed out together
  const bool clustered = kMulticast || p.split > 1;
  const int share = kMulticast ? 2 : p.split;  // blocks of a cluster
  const int rank = blockIdx.x % share;
  const int rows = p.groups * kGroupRows;
  const int token_tiles = (p.m + kTokens - 1) / kTokens;
  const int row_tiles = (p.n + rows * kTileBlocks - 1) / (rows * kTileBlocks);
  const int first_tile = blockIdx.x / share, tile_step = gridDim.x / share;
  const int tiles = token_tiles * row_tiles;
  const int all_k = (p.k + kBlockK - 1) / kBlockK;
  const int k_begin = kMulticast ? 0 : all_k * rank / p.split;
  const int k_end = kMulticast ? all_k : all_k * (rank + 1) / p.split;
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
    if (p.split > 1) {
      const WgmmaTile tile(first_tile, token_tiles, row_tiles);
      mbarrier_expect(sums_barrier, warps * eights(tile.token) * 512);
    }
  }
  __syncthreads();
  if (clustered) cluster_arrive();
  if (kMulticast) cluster_wait();

  if (warp >= warps) {
    fewer_registers<copy_registers(kMaxGroups)>();
    uint32_t slot = 0, parity = 1;
    const auto next_slot = [&] {
      if (++slot == p.stages) {
        slot = 0;
        parity ^= 1;
      }
    };
    if (warp == warps && lane == 0) {
      const int64_t k_stride = row_blocks(p.n) * kBlockBytes;
      for (int tile_at = first_tile; tile_at < tiles; tile_at += tile_step) {
        const WgmmaTile tile(tile_at, token_tiles, row_tiles);
        const int block = (tile.row_tile * kTileBlocks + (kMulticast ? rank : 0)) * warps;
        const uint8_t* from = p.weights + k_begin * k_stride + int64_t{block} * kBlockBytes;
#pragma unroll 1
        for (int k = k_begin; k < k_end; ++k) {
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
      for (int tile_at = first_tile; tile_at < tiles; tile_at += tile_step) {
        const WgmmaTile tile(tile_at, token_tiles, row_tiles);
        const int half = kMulticast ? rank * kShare : 0;
#pragma unroll 1
        for (int k = k_begin; k < k_end; ++k) {
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
    const int g = lane / 4;
    // The blocks of 16 rows that this block of the cluster writes out, and the one of this warp.
    const int own_blocks = warps / p.split, own_block = warp % own_blocks;
    const uint32_t unit = base + at.units + warp * (kUnitTokens * kUnitStride * 4);
    uint32_t slot = 0, parity = 0;
    const auto release = [&](uint32_t s) {
      if constexpr (kMulticast) {
        if (lane < 2) mbarrier_arrive_at(empty + s * 8, lane);
      } else {
        if (lane == 0) mbarrier_arrive(empty + s * 8);
      }
    };
    for (int tile_at = first_tile; tile_at < tiles; tile_at += tile_step) {
      const WgmmaTile tile(tile_at, token_tiles, row_tiles);
      const int first_row = (tile.row_tile * kTileBlocks + (kMulticast ? rank : 0)) * rows;
      const int own_row =
          first_row + ((kMulticast ? 0 : rank * own_blocks) + own_block) * kBlockRows;
      __syncwarp();
      if (lane < kBlockRows) {
        cp_async_4(unit + lane * 4, p.row_alpha + min(own_row + lane, p.n - 1));
      }
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
      for (int k = k_begin; k < k_end; ++k) {
        // The same in all lanes, and known to be so: descriptors are then built once a warp.
        const uint32_t operand = __shfl_sync(~0u, operand_of(base + slot * at.slot_activations), 0);
        const uint32_t before = last;
        last = slot;
#pragma unroll
        for (int pair = 0; pair < 4; ++pair) {
          const uint4& c = codes[pair / 2];
          uint32_t a[8];
          widen_pair(pair % 2 ? c.z : c.x, pair % 2 ? c.w : c.y, (&scales.x)[pair], a);
          const uint32_t b =
              operand + pair / 2 * (kTokens * 128 >> 4) + pair % 2 * (2 * kOperandStep16);
          wgmma_fence();
          wgmma_bf16<kTokens>(sum, a, b);
          wgmma_bf16<kTokens>(sum, a + 4, b + kOperandStep16);
          wgmma_commit();
          if (pair == 3) {
            if (++slot == p.stages) {
              slot = 0;
              parity ^= 1;
            }
            if (k + 1 < k_end) load();
          }
          wgmma_wait<kPending>();
          // All that read the slot before has ended.
          if (pair == kPending - 1 && k > k_begin) release(before);
        }
      }
      wgmma_wait<0>();
      release(last);

      const int token = tile.token * kTokens;
      wait_for_previous_kernel();  // which may have written C
      cp_async_wait<0>();
      __syncwarp();
      const float alpha[2] = {load_shared_f32(unit + g * 4) * kSumScale,
                              load_shared_f32(unit + g * 4 + 32) * kSumScale};
      if (p.split == 1) {
#pragma unroll
        for (int i = 0; i < kTokens / kUnitTokens; ++i) {
          store_unit(p, unit, lane, token + i * kUnitTokens, own_row, alpha, sum + i * 8);
        }
      } else {
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
        for (int i = owner; i * 2 < count; i += p.split) {
          float all[8] = {};
#pragma unroll 1
          for (int s = 0; s < p.split; ++s) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
              const float4 part = load_shared_f32x4(parts + s * part_bytes + (i * 2 + half) * 512);
              all[half * 4] += part.x;
              all[half * 4 + 1] += part.y;
              all[half * 4 + 2] += part.z;
              all[half * 4 + 3] += part.w;
            }
          }
          store_unit(p, unit, lane, token + i * kUnitTokens, own_row, alpha, all);
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
  } else if (p.split > 1 && warp >= warps) {
    __syncwarp();
    cluster_wait();
  }
}

}  // namespace nibble::sm90
