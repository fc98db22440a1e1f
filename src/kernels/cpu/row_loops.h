// The inner loops of GEMMs over canonical 8-, 16- and 32-bit weights. Plain structs only; see
// tile_loops.h.
#pragma once

#include <cstdint>

#include "nibble/types.h"

namespace nibble::cpu {

inline constexpr int kRowBlockRows = 4;

// Up to four rows of B, any alignment, against up to max_tokens rows of A.
struct RowBlock {
  WeightFormat format;
  const uint8_t* b;
  int64_t b_stride;  // bytes
  int rows;
  const float* a;
  int64_t a_stride;
  int tokens;
  int64_t k;   // a multiple of 16
  float* out;  // [tokens][kRowBlockRows] sums; e4m3 times 2^-120
};

struct RowLoops {
  int max_tokens;
  void (*multiply)(const RowBlock& block);
};

namespace avx2 {
extern const RowLoops kRows;
}
namespace avx512 {
extern const RowLoops kRows;
}

}  // namespace nibble::cpu
