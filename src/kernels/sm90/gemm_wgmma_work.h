// How the wgmma GEMM shares out memory, registers and work.
#pragma once

#include <cstdint>

#include "base/host_device.h"
#include "kernels/sm90/blocks.h"

namespace nibble::sm90 {

constexpr int kGroupRows = 64;   // of a warpgroup
constexpr int kGroupBlocks = 4;  // its blocks of 16 rows, one a warp
constexpr int kUnitTokens = 16;  // what a warp writes out at once, times 16 rows
constexpr int kUnitBytes = kUnitTokens * 16 * 2;
constexpr int kMaxSplitTokens = 128;  // the parts of wider tiles leave no room for the ring
constexpr int kTokenGroup = 8;  // token tiles that take turns before the next rows: L2 keeps both

// Where things lie in a block's shared memory, in bytes: the ring's activations and weights, the
// parts of the tile that other blocks send, a unit for each warp, the barriers.
struct WgmmaShared {
  int slot_activations, slot_weights, weights, parts, units, barriers, bytes;

  NIBBLE_HD WgmmaShared(int tokens, int groups, int stages, int split) {
    slot_activations = tokens * kBlockK * 2;
    slot_weights = groups * kGroupBlocks * kBlockBytes;
    weights = stages * slot_activations;
    parts = weights + stages * slot_weights;
    units = parts + (split > 1 ? groups * kGroupRows * tokens * 4 : 0);
    barriers = units + groups * kGroupBlocks * kUnitBytes;
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

// Kernels that can cut the stream of tiles: those with registers to spare.
NIBBLE_HD constexpr bool is_streamed(int tokens, int max_groups) {
  return tokens >= 64 && max_groups == 2;
}

struct WgmmaTile {
  int token, row_tile;

  NIBBLE_HD WgmmaTile(int tile, int token_tiles, int row_tiles) {
    const int per_group = kTokenGroup * row_tiles, group = tile / per_group;
    const int rest = tile - group * per_group;
    const int left = token_tiles - group * kTokenGroup;
    const int width = left < kTokenGroup ? left : kTokenGroup;
    token = group * kTokenGroup + rest % width;
    row_tile = rest / width;
  }
};

// What a block multiplies: parts of tiles, one after the other.
template <bool kStream>
struct WgmmaParts {
  int tile, k_begin, k_end;

  NIBBLE_HD WgmmaParts(int stream_tiles, int worker, int workers, int k)
      : unit_(kStream ? begin_of(stream_tiles, worker, workers, k) : 0),
        unit_end_(kStream ? begin_of(stream_tiles, worker + 1, workers, k) : 0),
        whole_(stream_tiles + worker) {}

  // Where a worker's piece of the stream begins.
  NIBBLE_HD static int begin_of(int stream_tiles, int worker, int workers, int k) {
    return static_cast<int>(int64_t{stream_tiles} * k * worker / workers);
  }
  NIBBLE_HD bool next(int split, int workers, int share, int tiles, int k) {
    if (kStream && unit_ < unit_end_) {
      tile = unit_ / k;
      k_begin = unit_ - tile * k;
      k_end = k_begin + unit_end_ - unit_;
      if (k_end > k) k_end = k;
      unit_ += k_end - k_begin;
      return true;
    }
    tile = whole_;
    k_begin = k * share / split;
    k_end = k * (share + 1) / split;
    whole_ += workers;
    return tile < tiles;
  }

 private:
  int unit_, unit_end_, whole_;
};

}  // namespace nibble::sm90
