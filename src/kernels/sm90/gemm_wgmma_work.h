// How the wgmma GEMM shares out memory, registers and work.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/host_device.h"
#include "kernels/cuda/divide.h"
#include "kernels/sm90/blocks.h"

namespace nibble::sm90 {

using cuda::ceil_div;

constexpr int kGroupRows = 64;   // of a warpgroup
constexpr int kGroupBlocks = 4;  // its blocks of 16 rows, one a warp
constexpr int kTokenGroup = 8;   // token tiles that take turns before the next rows: L2 keeps both

// Tokens of a unit of output, times a warpgroup's rows; of a shared tile, the units go round the
// blocks. And how many of them a warpgroup stages in shared memory before it writes them out, as
// many as cost the ring no more than one of its slots.
NIBBLE_HD constexpr int unit_tokens(int tokens) { return tokens <= 32 ? 8 : 16; }
// Of a tile; of 104 and 120 tokens the last is half empty.
NIBBLE_HD constexpr int tile_units(int tokens) {
  return (tokens + unit_tokens(tokens) - 1) / unit_tokens(tokens);
}
NIBBLE_HD constexpr int staged_units(int tokens, int max_groups) {
  if (tokens > 128) return 1;
  const bool few = max_groups <= (tokens == 64 ? 2 : 3);
  return tokens < 64 || !few ? 2 : tokens == 96 ? 3 : 4;
}
constexpr int kWarpUnitBytes = 16 * 16 * 2;  // where a warp writes its 16 rows out by itself
constexpr int kFactorBytes = 2 * 16 * 4;     // alpha and bias of a warp's rows

// Units of a tile shared by `parts` that one of them writes out, at most, and the bytes of the
// others' sums for them.
NIBBLE_HD constexpr int own_units(int tokens, int parts) {
  return (tile_units(tokens) + parts - 1) / parts;
}
NIBBLE_HD constexpr int unit_sums_bytes(int tokens) {
  return unit_tokens(tokens) * 16 * 4;
}  // a warp
NIBBLE_HD constexpr int sums_bytes(int tokens, int groups, int parts) {
  return (parts - 1) * own_units(tokens, parts) * groups * kGroupBlocks * unit_sums_bytes(tokens);
}

// Where things lie in a block's shared memory, in bytes. In front, known without a parameter, the
// barriers: for each slot full and empty, for each of the k groups one for sums, and one more. Then
// the ring's activations and weights, `sum_bytes` of others' sums, the units that each of
// `warpgroups` stages, factors for each of their warps.
constexpr int kMaxStages = 12;
constexpr int kRingAt = 1024;
NIBBLE_HD constexpr int max_stages(int tokens) {
  const int fit = (kSharedLimit - kRingAt) / (tokens * kBlockK * 2 + kGroupBlocks * kBlockBytes);
  return fit < kMaxStages ? fit : kMaxStages;
}

// Slots that are filled before the block has met, while most of its barriers are set up: the first
// copy is issued 700 to 900 clocks after the block's start instead of 1,350 to 1,600. 7168 x 2048
// at m = 16, 64, 128 and 256 5.54, 6.63, 8.34 and 13.12 -> 5.03, 6.32, 7.94 and 12.71 us. One slot
// less takes 0.1 to 0.2 us more up to 64 tokens; one more up to 0.2 with more of them, and the
// whole ring 0.7 to 3: what comes first then stands behind what comes later, of the other operand
// too.
NIBBLE_HD constexpr int first_slots(int tokens) { return tokens <= 64 ? 2 : 1; }

struct WgmmaShared {
  int slot_activations, slot_weights, weights, sums, units, group_units, factors, bytes;

  NIBBLE_HD WgmmaShared(int tokens, int groups, int warpgroups, int staged, int stages,
                        int sum_bytes) {
    slot_activations = tokens * kBlockK * 2;
    slot_weights = groups * kGroupBlocks * kBlockBytes;
    weights = kRingAt + stages * slot_activations;
    sums = weights + stages * slot_weights;
    units = sums + sum_bytes;
    const int written = unit_tokens(tokens) * staged * kGroupRows * 2;
    group_units = written < kGroupBlocks * kWarpUnitBytes ? kGroupBlocks * kWarpUnitBytes : written;
    factors = units + warpgroups * group_units;
    bytes = factors + warpgroups * kGroupBlocks * kFactorBytes;
  }
};

// Whether one copy brings a slot's activations, both boxes of 64 k, which must fill it. Copies are
// what its thread has no time for: 4096 x 14336 at m = 16 14.6 -> 13.5 us.
NIBBLE_HD constexpr bool copies_pairs(int tokens, int tile_tokens, int k) {
  return tile_tokens == tokens && k % 64 == 0;
}

// Registers of a thread at the start, and of a multiplying one when the copying ones gave theirs.
NIBBLE_HD constexpr int copy_registers(int max_groups) { return max_groups <= 2 ? 40 : 32; }
NIBBLE_HD constexpr int start_registers(int max_groups) {
  return 65536 / (max_groups * 128 + 128) / 8 * 8;
}
NIBBLE_HD constexpr int multiply_registers(int max_groups) {
  return ((max_groups + 1) * start_registers(max_groups) - copy_registers(max_groups)) /
         max_groups / 8 * 8;
}

// Kernels that can cut the stream of tiles: those with registers to spare. (More than 128 tokens
// alone are never cut, but without that code ptxas waits for each product of 256 by itself.)
NIBBLE_HD constexpr bool is_streamed(int tokens, int max_groups) {
  return tokens >= 64 && max_groups <= (tokens > 80 ? 3 : 4);
}

// Kernels that can have lower tiles. (In those of two groups the other loop would be 13
// instructions longer, by what ptxas makes of it.)
NIBBLE_HD constexpr bool is_lowered(int max_groups) { return max_groups > 2; }

// Kernels whose tiles the blocks of a cluster, or k groups, can share: the sums of wider ones leave
// the ring too few slots (192 rows x 128 tokens, by three blocks: three, 8 % slower).
NIBBLE_HD constexpr bool is_shared(int tokens, int max_groups) {
  return tokens <= 64 || (tokens <= 128 && max_groups <= 2);
}

// A tile of up to so many tokens is whole where it is the only one: one copy a slot gains more than
// zeros cost (4096 x 7168 at m = 12 9.2 -> 8.6 us).
constexpr int kWholeTokens = 32;

// How rows and tokens are cut into tiles. All of them share the tokens evenly: a tile's tokens
// beyond m would come as zeros from the copy engine, which took up to half of a GEMM's time (2048 x
// 7168, m = 200: 128 and 72 tokens 19.5 us, 100 and 100 13.4). And waves of tiles rarely come out
// even: the last rows may be cut into lower tiles, so that every block has a last one.
struct WgmmaTiles {
  int token_tiles, tile_tokens;  // of a token tile, at most
  int row_tiles, groups;         // in groups of 64 rows, but
  int low_from, low_groups;      // of the row tiles from low_from on

  // Tiles of at most `tokens` x `row_groups`, multiples of token_step and row_step, for `workers`
  // that take turns; lower ones where `may_lower`.
  WgmmaTiles(int m, int n, int tokens, int token_step, int row_groups, int row_step, int workers,
             bool may_lower) {
    const auto up = [](int64_t a, int64_t b) { return static_cast<int>(ceil_div(a, b)); };
    token_tiles = up(m, tokens);
    tile_tokens = token_tiles == 1 && tokens <= kWholeTokens
                      ? tokens
                      : up(up(m, token_tiles), token_step) * token_step;
    const int all = up(n, kGroupRows);
    row_tiles = low_from = up(all, row_groups);
    groups = low_groups = row_groups;
    const int64_t waves = int64_t{row_tiles} * token_tiles / workers;
    // Where token tiles take turns, lower tiles would not come last.
    if (!may_lower || waves == 0 || token_tiles > kTokenGroup) return;
    const auto whole = static_cast<int>(waves * workers / token_tiles);
    const int64_t room = (waves + 1) * workers - int64_t{whole} * token_tiles;
    for (int low = row_step; low < row_groups && whole * row_groups < all; low += row_step) {
      const int more = up(all - whole * row_groups, low);
      if (int64_t{more} * token_tiles > room) continue;
      low_from = whole;
      low_groups = low;
      row_tiles = whole + more;
      return;
    }
  }

  int tiles() const { return token_tiles * row_tiles; }
  bool lower() const { return low_from < row_tiles; }
};

// How many blocks have which tiles where two kinds of them share a grid: one kind seldom gives all
// blocks work. 7168 rows are 28 tiles of 256, so that of 132 blocks 112 had work at m = 512; two
// token tiles of 144 x 192 rows and one of 224 x 128 are 132 tiles of nearly the same time.
struct WgmmaMix {
  struct Kind {
    int tokens, groups;
    int cost() const { return groups * (tokens + 32); }  // of a tile; the 32: widening
  };
  int m;                      // tokens of the first kind's tiles, all of them full
  int workers, rest_workers;  // blocks of either kind; of the rest 0 where there is none

  // Whatever m is; of many tiles another cut of them is better.
  WgmmaMix(int all_m, int n, Kind kind, Kind rest, int blocks) : m(all_m), rest_workers(0) {
    const int64_t groups = ceil_div(n, kGroupRows);
    const int64_t of_one_kind = ceil_div(all_m, kind.tokens) * ceil_div(groups, kind.groups);
    workers = static_cast<int>(std::min<int64_t>(of_one_kind, blocks));
    int64_t best = INT64_MAX;
    for (int columns = blocks > 1 ? kTokenGroup : 0; columns > 0; --columns) {
      const int first = columns * kind.tokens;
      if (first >= all_m) continue;
      const int64_t tiles = columns * ceil_div(groups, kind.groups);
      const int64_t others = ceil_div(all_m - first, rest.tokens) * ceil_div(groups, rest.groups);
      for (int64_t waves = ceil_div(tiles, blocks - 1); waves * kind.cost() < best; ++waves) {
        const auto with = static_cast<int>(ceil_div(tiles, waves));
        const int64_t own = waves * kind.cost();
        const int64_t theirs = ceil_div(others, blocks - with) * rest.cost();
        if (std::max(own, theirs) < best) {
          best = std::max(own, theirs);
          m = first;
          workers = with;
          rest_workers = static_cast<int>(std::min<int64_t>(others, blocks - with));
        }
        if (theirs <= own) break;
      }
    }
  }
};

// The tiles of a GEMM and who multiplies which. Made on the host, so that no block divides. With
// what stands before it in WgmmaParams it fills two lines of the constant cache: a third one, of
// what is needed before the first load, took 0.1 us.
struct WgmmaWork {
  int stream_tiles = 0;  // the first tiles, whose k is cut into equal pieces for all workers
  int split = 1;         // blocks of a cluster that share a tile, each a part of k
  int workers = 1;       // blocks, or clusters that share a tile
  int tiles = 0, tile_tokens = 0, all_k = 0;

  WgmmaWork() = default;
  WgmmaWork(const WgmmaTiles& cut, int k, int streamed, int sharing, int count)
      : stream_tiles(streamed),
        split(sharing),
        workers(count),
        tiles(cut.tiles()),
        tile_tokens(cut.tile_tokens),
        all_k(k),
        token_tiles_(cut.token_tiles),
        groups_(cut.groups),
        low_from_(cut.low_from),
        low_groups_(cut.low_groups),
        of_group_(kTokenGroup * cut.row_tiles),
        of_last_width_((cut.token_tiles - 1) % kTokenGroup + 1),
        piece_(streamed * k / count),
        longer_pieces_(streamed * k % count),
        part_(k / sharing),
        longer_parts_(k % sharing),
        of_k_(k) {}

  // Where a worker's piece of the stream begins, and a block's part of a shared tile's k.
  NIBBLE_HD int piece_begin(int worker) const {
    return worker * piece_ + (worker < longer_pieces_ ? worker : longer_pieces_);
  }
  NIBBLE_HD int part_begin(int rank) const {
    return rank * part_ + (rank < longer_parts_ ? rank : longer_parts_);
  }

 private:
  template <bool kLower>
  friend struct WgmmaTile;
  template <bool kStream>
  friend struct WgmmaParts;

  int token_tiles_ = 0, groups_ = 0, low_from_ = 0, low_groups_ = 0;
  cuda::Divisor of_group_, of_last_width_;
  int piece_ = 0, longer_pieces_ = 0, part_ = 0, longer_parts_ = 0;
  cuda::Divisor of_k_;
};

// kLower: of a kernel that can have lower tiles.
template <bool kLower>
struct WgmmaTile {
  int token;          // the first,
  int group, groups;  // and of its groups of 64 rows

  NIBBLE_HD WgmmaTile(int tile, const WgmmaWork& w) {
    const int turn = w.of_group_.divide(tile), rest = tile - turn * w.of_group_.value;
    const bool full = (turn + 1) * kTokenGroup <= w.token_tiles_;
    const int row_tile = full ? rest / kTokenGroup : w.of_last_width_.divide(rest);
    const int width = full ? kTokenGroup : w.of_last_width_.value;
    token = (turn * kTokenGroup + rest - row_tile * width) * w.tile_tokens;
    groups = w.groups_;
    group = row_tile * groups;
    if (const int low = row_tile - w.low_from_; kLower && low >= 0) {
      groups = w.low_groups_;
      group -= low * (w.groups_ - groups);
    }
  }
};

// What a block multiplies: parts of tiles, one after the other.
template <bool kStream>
struct WgmmaParts {
  int tile, k_begin, k_end;

  NIBBLE_HD WgmmaParts(const WgmmaWork& w, int worker)
      : unit_(kStream ? w.piece_begin(worker) : 0),
        unit_end_(kStream ? w.piece_begin(worker + 1) : 0),
        whole_(w.stream_tiles + worker) {}

  // `rank` of the blocks that share a tile.
  NIBBLE_HD bool next(const WgmmaWork& w, int rank) {
    if (kStream && unit_ < unit_end_) {
      tile = w.of_k_.divide(unit_);
      k_begin = unit_ - tile * w.all_k;
      k_end = k_begin + unit_end_ - unit_;
      if (k_end > w.all_k) k_end = w.all_k;
      unit_ += k_end - k_begin;
      return true;
    }
    tile = whole_;
    k_begin = w.part_begin(rank);
    k_end = w.part_begin(rank + 1);
    whole_ += w.workers;
    return tile < w.tiles;
  }

 private:
  int unit_, unit_end_, whole_;
};

}  // namespace nibble::sm90
