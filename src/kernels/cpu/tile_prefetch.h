// Asking for tiles before their turn. Included by the loops of each instruction set.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "nibble/types.h"

namespace nibble::cpu {
namespace {

// One token takes tiles faster than the processor's own prefetching looks ahead: without this a
// core reads 8 GB/s where it can read 20. Tiles lie one behind the other, scales included, so the
// codes' progress through a tile stands for the memory's; that prefetches the tiles to come whole.
constexpr int64_t kAhead = 8192;

// At block `block` (16 of k) of a tile.
template <WeightFormat kFormat>
void prefetch_tile(const uint8_t* tile, int64_t block) {
  constexpr int64_t kBytes = kFormat == WeightFormat::kNvfp4 ? 144 : 136;  // with its scales
  const uint8_t* const p = tile + block * kBytes + kAhead;
  _mm_prefetch(p, _MM_HINT_T0);
  _mm_prefetch(p + 64, _MM_HINT_T0);
  if (block % 4 == 3) _mm_prefetch(p + 128, _MM_HINT_T0);  // a block is a little over two lines
}

}  // namespace
}  // namespace nibble::cpu
