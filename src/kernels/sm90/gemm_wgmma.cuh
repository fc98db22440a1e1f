// The prefill GEMM: from about 16 tokens up, where the tensor cores' time counts too.
//
// D is computed transposed: a tile is 64 rows of weights for each multiplying warpgroup x kTokens
// tokens. The weights are widened in registers and are wgmma's A operand; the activations are B,
// from shared memory. One warpgroup copies, into a ring of slots: a thread of it the weights, one
// piece of memory for each 128 of k, another the activations, as boxes of 64 k x kTokens.
//
// A block walks over whole tiles, or, where there are few (split > 1), a cluster shares one tile,
// each block a part of k (gemm_wgmma_sums.cuh). Or (kMulticast) two blocks side by side have
// different rows and the same tokens, and each copies half of them to both. Of one tile a block can
// also have two k groups of warpgroups (kKGroups), with the same rows and every other step of k:
// one warpgroup alone leaves the tensor cores idle half of the time.
//
// Whole tiles rarely come out even. Then the last rows are cut into lower tiles, of which the upper
// warpgroups have none (WgmmaTiles); or the k of the first stream_tiles tiles, laid end to end, is
// cut into as many equal pieces as there are blocks: who begins inside a tile leaves its sums in
// the workspace for the block that began the tile, which adds them in order. Or (kMixed) the first
// blocks have the first tokens' tiles and the others tiles of another size (WgmmaMix).
//
// What lost: that for few tiles too (sums through L2 take 4 us of a GEMM), one copying thread for
// both operands, two for each (0.2 us with k groups), two blocks a multiprocessor, ping-pong.
#pragma once

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/wgmma.cuh"
#include "kernels/sm90/gemm_wgmma_copy.cuh"
#include "kernels/sm90/gemm_wgmma_output.cuh"
#include "kernels/sm90/gemm_wgmma_sums.cuh"
#include "kernels/sm90/widen.cuh"

namespace nibble::sm90 {

// The loop over k is limited by the instructions that a warp issues, 1.1 to 1.3 clocks for each
// beside products, whatever they are; half of them widen. What its others cost, and what ptxas
// makes of them, is why it is written as it is: 180 to 204 instructions a step of 128 k became 155
// to 163, and 16 to 64 tokens take 6 to 15 % less time. sm90_sass_test counts them.
template <int kTokens, int kMaxGroups, int kKGroups, bool kMulticast, bool kMixed, Wide kWide>
__device__ __forceinline__ void wgmma_block(const CUtensorMap& activations, const WgmmaParams& p,
                                            int worker) {
  using namespace nibble::cuda;
  extern __shared__ __align__(1024) uint8_t shared[];
  constexpr bool kSplit = !kMulticast && !kMixed && is_shared(kTokens, kMaxGroups);
  static_assert(kKGroups == 1 || kSplit);
  const WgmmaWork& work = p.work;
  const int split = kSplit ? work.split : 1, parts = split * kKGroups;
  constexpr int kStaged = staged_units(kTokens, kMaxGroups);
  static_assert(!kSplit || own_units(kTokens, 2) <= kStaged);
  constexpr int kSlots = max_stages(kTokens);
  const uint32_t base = shared_address(shared);
  const uint32_t full = base, empty = full + kSlots * 8;
  const uint32_t sums_barrier = empty + kSlots * 8, spare_barrier = sums_barrier + kKGroups * 8;
  // No parameter to wait for: a line of them that the constant cache lacks takes 110 clocks, and
  // the barriers' addresses would have needed three.
  const int warp = uniform(threadIdx.x / 32), lane = threadIdx.x % 32;
  const int warps = blockDim.x / 32 - 4;
  const WgmmaShared at(kTokens, p.groups, warps / 4, kStaged, p.stages, kSplit ? p.sum_bytes : 0);
  constexpr int kTileBlocks = kMulticast ? 2 : 1;  // blocks whose tiles are handed out together
  const bool clustered = kMulticast || split > 1;
  const int rank = cluster_rank();
  constexpr bool kStream = kKGroups == 1 && !kMixed && is_streamed(kTokens, kMaxGroups);
  constexpr bool kLower = kKGroups == 1 && is_lowered(kMaxGroups);
  // Barriers; 2 + group is a warpgroup's. Of kMayCopy and kMayFill each copying warp has its own.
  constexpr int kSumsThere = 1, kSumsLeft = 7, kMayMultiply = 8, kMayCopy = 9, kMayFill = 11;
  constexpr int kFirstSlots = first_slots(kTokens);
  // Pairs of k16 steps that are widened and then multiplied together, while the ones before are
  // under way. Two took 3 % less than one where registers last (48 tokens: 2 to 3 %, but 2 % more
  // with one warpgroup).
  constexpr int kBatch = kTokens <= 48 ? 2 : 1;
  // One or two warpgroups hide little: they wait for the pair before only when they have widened
  // the next (3 to 6 % faster; more warpgroups 1 to 3 % slower; in batches of two, ptxas would then
  // write registers that products still read: sm90_sass_test), and read the next step's first
  // weights in the middle of a step (1 to 8 %; three and four 1 to 2 % slower, five 2 % faster).
  constexpr bool kFew = kMaxGroups <= 2 && kTokens >= 64 && !kMulticast;
  constexpr bool kScalesFirst = kFew && kTokens != 128;
  // (Four with 112 tokens: else ptxas lacks registers, and waits for each product by itself.)
  constexpr bool kEarly = (kMixed && kTokens <= 128 && kMaxGroups <= 3) ||
                          (kFew && kKGroups == 1) || (kTokens == 64 && kMaxGroups == 5) ||
                          (kTokens == 112 && kMaxGroups == 4);
  // Of a product: beside two other warpgroups ptxas has no registers for 208 and more.
  constexpr int kProducts = kTokens == 216 ? 3 : kTokens == 208 || kTokens == 224 ? 2 : 1;
  constexpr int kColumns = kTokens / kProducts;
  using Parts = WgmmaParts<kStream>;
  using Tile = WgmmaTile<kLower>;
  // Of a shared tile, unit u is written out by part u % parts.
  constexpr int kUnit = unit_tokens(kTokens), kUnits = tile_units(kTokens);
  const auto units_of = [&](int token) {
    return (min(work.tile_tokens, p.m - token) + kUnit - 1) / kUnit;
  };

  // A barrier a warp, of those that copy nothing. With an address that ptxas knows to be the warp's
  // it is one instruction, else a loop over lanes: 0.2 us of a GEMM.
  const auto set_up = [&](int warp_of_these) {
    if (elect_one()) {
#pragma unroll 1
      for (int i = kFirstSlots + warp_of_these; i < 2 * kSlots; i += warps + 2) {
        // Full: by the two copying threads; empty: by who reads.
        mbarrier_init(base + i * 8, i < kSlots ? 2 : warps / kKGroups * kTileBlocks);
      }
      if (warp_of_these == 0) {
        for (int i = 0; i < kKGroups; ++i) mbarrier_init(sums_barrier + i * 8, 1);
        mbarrier_init(spare_barrier, 1 << 19);  // nobody waits for it
      }
      fence_mbarrier_init();
    }
    __syncwarp();  // what follows is for whole warps
    for (int i = 0; i < 2; ++i) barrier_arrive(kMayCopy + i, warps * 32 + 96);
  };
  const auto meet_cluster = [&] {
    if (clustered) cluster_arrive();
    if (kMulticast) cluster_wait();
  };
  // At a barrier of its own for each copying warp: what is waited for in two places is an error to
  // synccheck.
  const auto may_copy = [&] {
    barrier_sync(kMayCopy + warp - warps, warps * 32 + 96);
    meet_cluster();
  };

  if (warp >= warps) {
    fewer_registers<copy_registers(kMaxGroups)>();
    const WgmmaCopies<kTokens, kMulticast, kStream, kLower> copies = {
        p, at, base, full, empty, worker, kSplit ? rank : 0, kMulticast ? rank : 0};
    const auto may_fill = [&] { barrier_sync(kMayFill + warp - warps, 64); };
    if (warp == warps) {
      copies.weights(may_fill, may_copy);
    } else if (warp == warps + 1 && kMulticast) {  // to the other block too
      copies.activations(activations, may_copy, [] {});
    } else if (warp == warps + 1) {
      copies.activations(activations, may_fill, may_copy);
    } else {
      if (warp == warps + 2) {  // what the copying warps wait for first
        if (elect_one()) {
          for (int i = 0; i < kFirstSlots; ++i) mbarrier_init(full + i * 8, 2);
          fence_mbarrier_init();
        }
        __syncwarp();
        for (int i = 0; i < (kMulticast ? 1 : 2); ++i) barrier_arrive(kMayFill + i, 64);
      }
      set_up(warp - 2);
      barrier_arrive(kMayMultiply, warps * 32 + 64);
      meet_cluster();
      // Waits for the sums that are left in the multiplying warps' stead: 2 us of a GEMM.
      Parts part(work, worker);
      if (kStream && warp == warps + 2 && split == 1 && part.next(work, 0) && part.k_begin > 0) {
        barrier_sync(kSumsLeft, warps * 32 + 32);
        __threadfence();
        if (lane == 0) store_release(p.flags + blockIdx.x, p.launch);
      }
    }
  } else {
    set_up(warp);
    barrier_sync(kMayMultiply, warps * 32 + 64);
    meet_cluster();
    if (split > 1 && threadIdx.x < kKGroups) {
      int own = 0;
      const int units = units_of(Tile(worker, work).token);
      for (int u = rank * kKGroups + threadIdx.x; u < units; u += parts) ++own;
      mbarrier_expect(sums_barrier + threadIdx.x * 8,
                      own * (parts - 1) * p.groups * kGroupBlocks * unit_sums_bytes(kTokens));
    }
    __syncwarp();
    // The others' barriers are set up. In front of the sums it took 0.15 us; here it is hidden.
    if (split > 1) cluster_wait();
    more_registers<multiply_registers(kMaxGroups)>();
    Parts part(work, worker);
    const int g = lane / 4;
    const uint32_t factors = base + at.factors + warp * kFactorBytes;
    // Read anew in each step, they held up its last products: 3 % of 64 tokens.
    const int slot_weights = in_register(p.slot_weights), stages = uniform(in_register(p.stages));
    // The warp's rows; and which steps of k are its.
    const int k_group = kKGroups > 1 && warp >= p.groups * kGroupBlocks;
    const int row_warp = warp - k_group * p.groups * kGroupBlocks;
    uint32_t slot = k_group, parity = 0;
    const auto next_slot_of_k_group = [&] {
      if constexpr (kKGroups == 1) return next_slot(slot, parity, stages);
      slot += kKGroups;
      if (const int wrapped = slot - stages; wrapped >= 0) {
        slot = wrapped;
        parity ^= 1;
      }
    };
    const auto release = [&](uint32_t barrier) {
      if constexpr (kMulticast) {
        if (lane < 2) mbarrier_arrive_at(barrier, lane);
      } else {
        if (lane == 0) mbarrier_arrive(barrier);
      }
    };
    const uint32_t lane_codes = base + at.weights + row_warp * kBlockBytes + lane * 16;
    uint32_t scales_behind = kBlockCodeBytes + g * 16 - lane * 16;
    // Lane 0 is who uses it; the same in all lanes, it would take a register of the descriptors.
    uint32_t lane_empty = kMulticast ? empty : empty + lane * 8;
    uint32_t first_operand = operand_of(base + kRingAt);
    compute_now(scales_behind);
    compute_now(lane_empty);
    compute_now(first_operand);
#pragma unroll 1
    while (__any_sync(~0u, part.next(work, kSplit ? rank : 0))) {
      part.tile = uniform(part.tile);
      part.k_begin = uniform(part.k_begin);
      part.k_end = uniform(part.k_end);
      const Tile tile(part.tile, work);
      const int groups = tile.groups / kTileBlocks;
      const int first_row = (tile.group + (kMulticast ? rank * groups : 0)) * kGroupRows;
      if (kLower && warp / kGroupBlocks >= groups) {  // has no rows of a lower tile
#pragma unroll 1
        for (int k = part.k_begin; k < part.k_end; ++k) {
          mbarrier_wait(full + slot * 8, parity);
          __syncwarp();
          release(lane_empty + slot * 8);
          next_slot(slot, parity, stages);
        }
        continue;
      }
      const int own_row = first_row + row_warp * kBlockRows;
      __syncwarp();
      {
        const int of = own_row + lane % kBlockRows, last = (p.n - 1) / kBlockRows * kBlockRows + 15;
        const bool biased = p.out.bias != nullptr, alpha = lane < kBlockRows;
        const float* from = p.row_alpha + min(of, last);
        if (!alpha && biased) from = p.out.bias + min(logical_row(p.out, of), p.n - 1);
        cp_async_4(factors + lane * 4, from, alpha || biased ? 4 : 0);
      }
      const bool left_to_another = kStream && split == 1 && part.k_begin > 0;
      if (p.staged == Staged::kAddC && !left_to_another) [[unlikely]] {
        // Of its own, or ptxas keeps what the loop's end needs again in registers meanwhile.
        int thread = threadIdx.x, token = tile.token, row = first_row;
        compute_now(thread);
        compute_now(token);
        compute_now(row);
        prefetch_c(p.out, thread % 128, token, min(work.tile_tokens, p.m - token),
                   row + (thread / 128 - k_group * p.groups) * kGroupRows);
      }
      cp_async_commit();
      float sum[kUnits * kUnit / 2] = {};
      // Outside the loop over tiles, or as a constant that ptxas folds, a descriptor would be
      // copied whole for each product.
      const uint32_t high = uniform(kOperandHigh);
      uint4 codes[2], scales;
      // In three loads, or by halves: four at once share a scoreboard (7 % of 40 tokens).
      const auto load_half = [&](int half) {
        const uint32_t from = lane_codes + slot * slot_weights;
        codes[half] = load_shared_16(from + half * 512);
        if (!kEarly && half == 1) scales = load_shared_16(from + scales_behind);
        if (!kEarly) return;
        const uint2 of_pairs = load_shared_8(from + scales_behind + half * 8);
        (half == 0 ? scales.x : scales.z) = of_pairs.x;
        (half == 0 ? scales.y : scales.w) = of_pairs.y;
      };
      mbarrier_wait(full + slot * 8, parity);
      load_half(0);
      load_half(1);
      uint32_t before = spare_barrier;  // of the slot that the products under way may still read
      int steps = (part.k_end - part.k_begin - k_group + kKGroups - 1) / kKGroups;
      bool more;
      do {
        const uint32_t operand = first_operand + slot * (at.slot_activations >> 4);
        const uint32_t own = lane_empty + slot * 8;
        more = --steps > 0;
        // All lanes have read their weights, before one of them gives the slot back. In front of
        // that itself, it held up the widening: 8 % of a GEMM of 16 tokens.
        __syncwarp();
#pragma unroll
        for (int pair = 0; pair < 4; pair += kBatch) {
          uint32_t a[kBatch][8];
#pragma unroll
          for (int i = 0; i < kBatch; ++i) {
            const int of = pair + i;
            const uint4& c = codes[of / 2];
            widen_pair<kWide, kScalesFirst>(of % 2 ? c.z : c.x, of % 2 ? c.w : c.y, (&scales.x)[of],
                                            a[i]);
          }
          if (kEarly && pair + kBatch == 4 && more) load_half(1);
          if (kFew) wgmma_wait<1>();
          if (kFew && pair == kBatch) release(before);
          wgmma_fence();
#pragma unroll
          for (int i = 0; i < 2 * kBatch; ++i) {
            const int of = 2 * pair + i;
#pragma unroll
            for (int token = 0; token < kTokens; token += kColumns) {
              wgmma<kWide == Wide::kF16, kColumns>(
                  sum + token / 2, a[i / 2] + i % 2 * 4,
                  operand + ((of / 4 * kTokens + token) * 128 >> 4) + of % 4 * kOperandStep16,
                  high);
            }
          }
          wgmma_commit();
          if (pair + kBatch == (kEarly ? 2 : 4)) {
            next_slot_of_k_group();
            if (more) {
              mbarrier_wait(full + slot * 8, parity);
              load_half(0);
              if (!kEarly) load_half(1);
            }
          }
          if (!kFew) {
            wgmma_wait<1>();
            if (pair == 0) release(before);
          }
        }
        before = own;
      } while (more);
      wgmma_wait<0>();
      release(before);
      cp_async_wait<0>();

      const int token = tile.token, tokens = min(work.tile_tokens, p.m - token);
      if constexpr (kStream) {
        const StreamedTile<kTokens> streamed = {p.parts, p.flags, p.launch, warps * 32};
        if (left_to_another) {
          streamed.leave(blockIdx.x, sum);
          barrier_arrive(kSumsLeft, warps * 32 + 32);
          continue;
        }
        const int tile_end = (part.tile + 1) * work.all_k;
#pragma unroll 1
        for (int w = worker + 1; split == 1 && part.k_end < work.all_k; ++w) {
          if (work.piece_begin(w) >= tile_end) break;
          streamed.add(w * kTileBlocks + rank, kSumsThere, sum);
        }
      }
      wait_for_previous_kernel();  // which may have written C
      __syncwarp();
      const float scale = sum_scale(p.out);
      const Factors by = {
          {load_shared_f32(factors + g * 4) * scale, load_shared_f32(factors + g * 4 + 32) * scale},
          {load_shared_f32(factors + g * 4 + 64), load_shared_f32(factors + g * 4 + 96)}};
      const int barrier = 2 + warp / 4, group_row = first_row + row_warp / 4 * kGroupRows;
      const uint32_t group_units = base + at.units + warp / 4 * at.group_units;
      const int own_part = rank * kKGroups + k_group;
      using Units = GroupUnits<kUnit, kWide == Wide::kF16 ? OutputType::kF16 : OutputType::kBF16>;
      const Units staged(p, group_units, threadIdx.x % 128, tokens, group_row);
      const WarpUnits<kUnit, kUnits> unstaged = {
          group_units + warp % 4 * kWarpUnitBytes, lane, token, token + tokens, own_row, by};
      const auto d = staged.places(p.out.d, p.out.d_stride, token);  // in a branch it comes late
      const auto is = [&](Staged as) {
        auto own = static_cast<int>(p.staged);
        if (kSplit && kKGroups == 1 && !kFew) compute_now(own);  // no switch: nvcc's table is cold
        return own == static_cast<int>(as);
      };
      if (kSplit && parts > 1) {
        const SharedTile<kTokens, kKGroups> shared_tile = {
            base + p.sums_at + row_warp * unit_sums_bytes(kTokens) + lane * 16,
            sums_barrier,
            kSumsThere,
            warps * 32,
            parts,
            own_part,
            p.groups * kGroupBlocks,
            p.own_units,
            units_of(token)};
        const uint32_t matrix = staged.matrix_at(p.out.silu_mul);
        if (p.staged == Staged::kAddC) {
          const auto c = staged.places(p.out.c, p.out.c_stride, token);
          staged.template copy<kStaged>(c, own_part, parts);
          barrier_sync(barrier, 128);
        }
        shared_tile.add_all(sum, [&](int index, const float* of_unit) {
          if (p.staged == Staged::kPlain) [[likely]] {
            staged.template put<Staged::kPlain>(index, matrix, by, of_unit);
          } else if (p.staged == Staged::kAddC) {
            staged.template put<Staged::kAddC>(index, matrix, by, of_unit);
          } else if (p.staged == Staged::kSiluMul) {
            staged.template put<Staged::kSiluMul>(index, matrix, by, of_unit);
          }
        });
        if (p.staged != Staged::kNot) [[likely]] {
          barrier_sync(barrier, 128);
          staged.template write<kStaged>(d, own_part, parts);
        } else if (parts == 2) {
          unstaged.write(p, own_part, 2, 0, 2, sum);
        } else {
          unstaged.write(p, own_part, parts, own_part, parts, sum);
        }
      } else if (is(Staged::kPlain)) [[likely]] {
        staged.template write_tile<Staged::kPlain, kUnits, kStaged>(p, d, token, barrier, by, sum);
      } else if (is(Staged::kAddC)) {
        staged.template write_tile<Staged::kAddC, kUnits, kStaged>(p, d, token, barrier, by, sum);
      } else if (is(Staged::kSiluMul)) {
        staged.template write_tile<Staged::kSiluMul, kUnits, kStaged>(p, d, token, barrier, by,
                                                                      sum);
      } else if constexpr (kFew && kEarly) {
        // (With the loop here too, ptxas waits for each product of two warpgroups by itself.)
        for_each<kUnits>([&]<int u>() { unstaged.write_one(p, u, sum + u * (kUnit / 2)); });
      } else {
        unstaged.write(p, 0, 1, 0, 1, sum);
      }
    }
  }
  // Nobody leaves while another block may still copy to it. (A shared tile's sums are waited for.)
  if constexpr (kMulticast) {
    __syncwarp();
    cluster_arrive();
    cluster_wait();
  }
}

}  // namespace nibble::sm90
