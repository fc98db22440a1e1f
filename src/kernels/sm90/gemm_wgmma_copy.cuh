// The wgmma GEMM's copying warps, which fill the ring: one with weights, one with activations.
//
// A small layer waits for their first copies, so the first slots (first_slots) are filled before
// the block meets. All lanes of a warp work the first tile out and one copies: elect.sync tells
// ptxas that it is one. Behind `lane == 0` it held nothing in uniform registers and issued each
// copy in a loop over the lanes.
//
// What lost: loops unrolled by two or four (1 %), values brought to uniform registers by hand, no
// wait for slots of the first round (0.3 %).
#pragma once

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/sm90/gemm_params.h"

namespace nibble::sm90 {

// On to the ring's next slot.
__device__ __forceinline__ void next_slot(uint32_t& slot, uint32_t& parity, int stages) {
  if (++slot == stages) {
    slot = 0;
    parity ^= 1;
  }
}

// kTileBlocks blocks have neighbouring rows and the same tokens: kMulticast where they are two.
template <int kTokens, bool kMulticast, bool kStream, bool kLower>
struct WgmmaCopies {
  static constexpr int kTileBlocks = kMulticast ? 2 : 1;
  using Parts = WgmmaParts<kStream>;
  using Tile = WgmmaTile<kLower>;

  const WgmmaParams& p;
  const WgmmaShared& at;
  uint32_t base;         // of the block's shared memory
  uint32_t full, empty;  // the first slot's barriers
  int worker;            // the block's, or its cluster's
  int part_of_k;         // of those that share a tile
  int half;              // of the kTileBlocks

  // may_fill() returns when the barriers of the first slots are set up, may_copy() when all are.
  template <class MayFill, class MayCopy>
  __device__ __forceinline__ void weights(const MayFill& may_fill, const MayCopy& may_copy) const {
    using namespace nibble::cuda;
    Parts part(p.work, worker);
    const int64_t k_stride = row_blocks(p.n) * kBlockBytes;
    int64_t from;
    int bytes;
    bool more;
    const auto next = [&] {
      more = part.next(p.work, part_of_k);
      const Tile tile(part.tile, p.work);
      const int groups = tile.groups / kTileBlocks;
      bytes = groups * (kGroupBlocks * kBlockBytes);
      const int64_t block = (tile.group + half * groups) * kGroupBlocks;
      from = reinterpret_cast<int64_t>(p.weights) + part.k_begin * k_stride + block * kBlockBytes;
    };
    next();
    // Asked for here; ptxas still moves the end of it behind the barrier.
    compute_now(from);
    compute_now(bytes);
    compute_now(part.k_begin);
    compute_now(part.k_end);
    fill_ring(part, more, next, may_fill, may_copy, [&](uint32_t slot, int) {
      mbarrier_expect(full + slot * 8, bytes);
      bulk_copy(base + at.weights + slot * p.slot_weights, reinterpret_cast<const void*>(from),
                bytes, full + slot * 8);
      from += k_stride;
    });
    let_next_kernel_start();
  }

  template <class MayFill, class MayCopy>
  __device__ __forceinline__ void activations(const CUtensorMap& map, const MayFill& may_fill,
                                              const MayCopy& may_copy) const {
    using namespace nibble::cuda;
    prefetch_tensor_map(&map);
    Parts part(p.work, worker);
    const int half_at = half * (p.work.tile_tokens / kTileBlocks);
    const bool pairs = !kMulticast && copies_pairs(kTokens, p.work.tile_tokens, p.k);
    int token;
    bool more;
    const auto next = [&] {
      more = part.next(p.work, part_of_k);
      token = Tile(part.tile, p.work).token;
    };
    next();
    compute_now(token);
    compute_now(part.k_begin);
    compute_now(part.k_end);
    const auto may_read = [&] {
      may_fill();
      wait_for_previous_kernel();
    };
    fill_ring(part, more, next, may_read, may_copy, [&](uint32_t slot, int k) {
      mbarrier_expect(full + slot * 8, p.work.tile_tokens * kBlockK * 2);
      const uint32_t to = base + kRingAt + slot * at.slot_activations;
      if (pairs) {
        tensor_copy(to, &map, 0, token, k * 2, full + slot * 8);
        return;
      }
#pragma unroll
      for (int box = 0; box < 2; ++box) {
        const uint32_t to_box = to + (box * kTokens + half_at) * 128;
        const int x = k * kBlockK + box * 64, y = token + half_at;
        if constexpr (kMulticast) {
          tensor_copy_multicast(to_box, &map, x, y, full + slot * 8, 3);
        } else {
          tensor_copy(to_box, &map, x, y, full + slot * 8);
        }
      }
    });
  }

 private:
  // copy(slot, k) for each 128 of k of each part, into a slot that was given back; next() goes on
  // to the next part, of which there is one while `more`. The first slots are filled in between.
  template <class Next, class MayFill, class MayCopy, class Copy>
  __device__ __forceinline__ void fill_ring(Parts& part, const bool& more, const Next& next,
                                            const MayFill& may_fill, const MayCopy& may_copy,
                                            const Copy& copy) const {
    constexpr int kFirst = first_slots(kTokens);
    // A part has one step at least, which ptxas does not know.
    const int first = kFirst == 1 ? 1 : min(kFirst, part.k_end - part.k_begin);
    may_fill();
    if (cuda::elect_one()) {
#pragma unroll
      for (int i = 0; i < kFirst; ++i) {
        if (i < first) copy(i, part.k_begin + i);
      }
    }
    __syncwarp();
    may_copy();
    if (!cuda::elect_one()) return;
    part.k_begin += first;
    uint32_t slot = first, parity = 1;
#pragma unroll 1
    while (more) {
#pragma unroll 1
      for (int k = part.k_begin; k < part.k_end; ++k) {
        cuda::mbarrier_wait(empty + slot * 8, parity);
        copy(slot, k);
        next_slot(slot, parity, p.stages);
      }
      next();
    }
  }
};

}  // namespace nibble::sm90
