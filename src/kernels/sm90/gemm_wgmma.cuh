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
// each block a part of k: units of tokens go round the blocks, each keeps its own sums of those
// that it writes out, and adds the others', which come by st.async, in the order of blocks. Or
// (kMulticast) two blocks side by side have different rows and the same tokens, and each copies
// half of them to both.
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
#include "kernels/sm90/gemm_wgmma_output.cuh"
#include "kernels/sm90/widen.cuh"

namespace nibble::sm90 {

// kPending: groups of two products under way while the next is widened.
template <int kTokens, int kMaxGroups, int kPending, bool kMulticast, Wide kWide>
__global__ void __launch_bounds__(kMaxGroups * 128 + 128, 1)
    wgmma_gemm(const __grid_constant__ CUtensorMap activations, const WgmmaParams p) {
  using namespace nibble::cuda;
  extern __shared__ __align__(1024) uint8_t shared[];
  constexpr bool kSplit = !kMulticast && is_shared(kTokens, kMaxGroups);
  const WgmmaWork& work = p.work;
  const int split = kSplit ? work.split : 1;
  const WgmmaShared at(kTokens, p.groups, p.stages, kSplit ? p.sum_bytes : 0);
  const uint32_t base = shared_address(shared);
  const uint32_t full = base + at.barriers, empty = full + p.stages * 8;
  const uint32_t sums_barrier = empty + p.stages * 8;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = p.groups * 4;
  constexpr int kTileBlocks = kMulticast ? 2 : 1;  // blocks whose tiles are handed out together
  const bool clustered = kMulticast || split > 1;
  const int rank = cluster_rank(), worker = cluster_index();
  const int rows = p.groups * kGroupRows;
  constexpr bool kStream = is_streamed(kTokens, kMaxGroups);
  // The pair behind which the next step's weights are read: early, they cost no wait (2 to 4 % of a
  // GEMM of 64 tokens). With one product under way that wait stands in front of the next (3 %
  // lost), and in narrow tiles ptxas then waits for each product (a tenth).
  constexpr int kLoadBehind = kTokens >= 64 && kPending == 3 ? 1 : 3;
  using Parts = WgmmaParts<kStream>;
  // Of a shared tile, unit u is written out by block u % split of the cluster.
  constexpr int kUnit = unit_tokens(kTokens);
  const auto units_of = [&](int token_tile) {
    return (min(kTokens, p.m - token_tile * kTokens) + kUnit - 1) / kUnit;
  };

  // A slot's barriers a warp: each takes a fence of its own, 24 in a row a microsecond.
  if (lane == 0) {
    if (warp < p.stages) {
      mbarrier_init(full + warp * 8, 2);  // the two copying threads
      mbarrier_init(empty + warp * 8, warps * kTileBlocks);
    }
    if (warp == warps) mbarrier_init(sums_barrier, 1);
    if (warp == warps + 1) prefetch_tensor_map(&activations);
    fence_mbarrier_init();
  }
  __syncthreads();
  if (split > 1 && threadIdx.x == 0) {
    int own = 0;
    for (int u = rank; u < units_of(WgmmaTile(worker, work).token); u += split) ++own;
    mbarrier_expect(sums_barrier, own * (split - 1) * warps * unit_sums_bytes(kTokens));
  }
  if (clustered) cluster_arrive();
  if (kMulticast) cluster_wait();

  if (warp >= warps) {
    fewer_registers<copy_registers(kMaxGroups)>();
    Parts part(work, worker);
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
      while (part.next(work, kSplit ? rank : 0)) {
        const WgmmaTile tile(part.tile, work);
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
      while (part.next(work, kSplit ? rank : 0)) {
        const WgmmaTile tile(part.tile, work);
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
    Parts part(work, worker);
    const int g = lane / 4;
    const uint32_t factors = base + at.factors + warp * kFactorBytes;
    uint32_t slot = 0, parity = 0;
    const auto release = [&](uint32_t s) {
      if constexpr (kMulticast) {
        if (lane < 2) mbarrier_arrive_at(empty + s * 8, lane);
      } else {
        if (lane == 0) mbarrier_arrive(empty + s * 8);
      }
    };
#pragma unroll 1
    while (part.next(work, kSplit ? rank : 0)) {
      const WgmmaTile tile(part.tile, work);
      const int first_row = (tile.row_tile * kTileBlocks + (kMulticast ? rank : 0)) * rows;
      const int own_row = first_row + warp * kBlockRows;
      __syncwarp();
      {
        const int of = own_row + lane % kBlockRows, last = (p.n - 1) / kBlockRows * kBlockRows + 15;
        const bool biased = p.out.bias != nullptr, alpha = lane < kBlockRows;
        const float* from = p.row_alpha + min(of, last);
        if (!alpha && biased) from = p.out.bias + min(logical_row(p.out, of), p.n - 1);
        cp_async_4(factors + lane * 4, from, alpha || biased ? 4 : 0);
      }
      cp_async_commit();
      float sum[kTokens / 2] = {};
      uint4 codes[2], scales;
      const auto weights_of = [&](uint32_t s) {
        return base + at.weights + s * at.slot_weights + warp * kBlockBytes + lane * 16;
      };
      const auto load_scales = [&](uint32_t weights) {
        return load_shared_16(weights + kBlockCodeBytes + g * 16 - lane * 16);
      };
      mbarrier_wait(full + slot * 8, parity);
      codes[0] = load_shared_16(weights_of(slot));
      codes[1] = load_shared_16(weights_of(slot) + 512);
      scales = load_scales(weights_of(slot));
      uint32_t last = 0;
#pragma unroll 1
      for (int k = part.k_begin; k < part.k_end; ++k) {
        // All lanes have read their weights, before one of them gives the slot back. In front of
        // that itself, it held up the widening: 8 % of a GEMM of 16 tokens.
        __syncwarp();
        // The same in all lanes, and known to be so: descriptors are then built once a warp.
        const uint32_t operand = __shfl_sync(~0u, operand_of(base + slot * at.slot_activations), 0);
        const uint32_t before = last;
        last = slot;
        const bool more = k + 1 < part.k_end;
        uint4 next_scales;
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
          if (pair == kLoadBehind) {
            if (++slot == p.stages) {
              slot = 0;
              parity ^= 1;
            }
            if (more) {
              mbarrier_wait(full + slot * 8, parity);
              codes[0] = load_shared_16(weights_of(slot));
              next_scales = load_scales(weights_of(slot));
            }
          }
          if (pair == 3 && more) codes[1] = load_shared_16(weights_of(slot) + 512);
          wgmma_wait<kPending>();
          // All that read the slot before has ended.
          if (pair == kPending - 1 && k > part.k_begin) release(before);
        }
        scales = next_scales;
      }
      wgmma_wait<0>();
      release(last);
      cp_async_wait<0>();

      const int token = tile.token * kTokens;
      if constexpr (kStream) {
        const int threads = warps * 32;
        const int count = (min(kTokens, p.m - token) + 7) / 8;
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
        const int tile_end = (part.tile + 1) * work.all_k;
#pragma unroll 1
        for (int w = worker + 1; split == 1 && part.k_end < work.all_k; ++w) {
          if (work.piece_begin(w) >= tile_end) break;
          const int block = w * kTileBlocks + rank;
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
          {load_shared_f32(factors + g * 4) * scale, load_shared_f32(factors + g * 4 + 32) * scale},
          {load_shared_f32(factors + g * 4 + 64), load_shared_f32(factors + g * 4 + 96)}};
      const uint32_t units = base + at.units + warp / 4 * at.group_units;
      const auto write_out = [&](int u, int index) {
        const float* unit_sum = sum + u * (kUnit / 2);
        if (plain) {
          store_group_unit<kUnit, unit_buffers(kTokens)>(
              p, units, index, 2 + warp / 4, threadIdx.x % 128, token + u * kUnit,
              first_row + warp / 4 * kGroupRows, by, unit_sum);
        } else {
          store_warp_unit<kUnit>(p, units + warp % 4 * kWarpUnitBytes, lane, token + u * kUnit,
                                 own_row, by, unit_sum);
        }
      };
      if (kSplit && split > 1) {
        cluster_wait();  // the owners' barriers are set up
        constexpr int kBytes = unit_sums_bytes(kTokens);
        const int count = units_of(tile.token), own = p.own_units;
        const uint32_t sums = base + p.sums_at + warp * kBytes + lane * 16;
        int owner = 0, index = 0;
        const auto next_unit = [&] {
          if (++owner == split) {
            owner = 0;
            ++index;
          }
        };
#pragma unroll
        for (int u = 0; u < kTokens / kUnit; ++u, next_unit()) {
          if (u >= count || owner == rank) continue;
          const int from = rank - (rank > owner);
          const uint32_t to = remote_address(sums + (from * own + index) * warps * kBytes, owner);
          const uint32_t to_barrier = remote_address(sums_barrier, owner);
#pragma unroll
          for (int i = 0; i < kUnit / 8; ++i) {
            store_remote(to + i * 512, sum + u * (kUnit / 2) + i * 4, to_barrier);
          }
        }
        mbarrier_wait(sums_barrier, 0);
        owner = index = 0;
#pragma unroll
        for (int u = 0; u < kTokens / kUnit; ++u, next_unit()) {
          if (u >= count || owner != rank) continue;
          float* const to = sum + u * (kUnit / 2);
#pragma unroll 1
          for (int from = 0; from < split - 1; ++from) {
#pragma unroll
            for (int i = 0; i < kUnit / 8; ++i) {
              const float4 more =
                  load_shared_f32x4(sums + (from * own + index) * warps * kBytes + i * 512);
              to[i * 4] += more.x;
              to[i * 4 + 1] += more.y;
              to[i * 4 + 2] += more.z;
              to[i * 4 + 3] += more.w;
            }
          }
          write_out(u, index);
        }
      } else {
#pragma unroll
        for (int u = 0; u < kTokens / kUnit; ++u) write_out(u, u);
      }
    }
  }
  // Nobody leaves while another block may still copy to it or arrive at its barriers. (Of a shared
  // tile's blocks, who has sums to come waits for them.)
  if constexpr (kMulticast) {
    __syncwarp();
    cluster_arrive();
    cluster_wait();
  }
}

}  // namespace nibble::sm90
