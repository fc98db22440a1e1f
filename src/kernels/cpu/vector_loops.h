// The inner loops of the ops around the GEMMs. Plain structs only; see tile_loops.h.
#pragma once

#include <cstdint>

#include "nibble/types.h"

namespace nibble::cpu {

inline constexpr int kAttentionKeys = 64;  // of a tile
inline constexpr int kAttentionRows = 6;   // queries that share a tile's loads; 12 sums

// One tile of keys and values against up to kAttentionRows queries; the softmax is rescaled from
// one tile to the next.
struct AttentionTile {
  const float* q;  // [rows], q_stride apart
  int64_t q_stride;
  int rows;
  const float* k;   // [keys, head_dim]; read where transposed is null
  const float* kt;  // [head_dim][kAttentionKeys], or null
  const float* v;   // [keys, head_dim]
  int keys;
  int64_t visible;  // keys of this tile that row 0 sees, beyond `keys` at most; row r sees r more
  int64_t head_dim;
  float scale;
  float* largest;  // [rows] running maximum of the scores
  float* total;    // [rows] running sum of the weights
  float* sum;      // [rows][head_dim] running sum of weighted values
};

// What drawing a token does to all logits.
struct SamplingLoops {
  int64_t (*argmax)(const float* x, int64_t n);  // the lowest index of the largest
  // Sum of e^((x - top) / temperature), relative error under 2^-18; NaN counts as nothing.
  double (*exp_sum)(const float* x, int64_t n, float top, float temperature);
  // Indices with low <= x < high, ascending; returns how many.
  int64_t (*find)(const float* x, int64_t n, float low, float high, int32_t* found);
};

struct VectorLoops {
  void (*rms_norm)(const float* x, const float* weight, int64_t n, float eps, float* y);
  // cos and sin of position * inv_freq[i], times factor.
  void (*rope_factors)(float position, const float* inv_freq, int64_t n, float factor, float* cos,
                       float* sin);
  void (*rotate)(float* head, int64_t half, const float* cos, const float* sin);
  void (*silu_mul)(const float* gate, const float* up, int64_t n, float* y);
  void (*attend)(AttentionTile tile);
  // A stored row of n values (a multiple of 16) times alpha; formats of 8 bits and more.
  void (*widen_row)(WeightFormat format, const uint8_t* row, int64_t n, float alpha, float* y);
  SamplingLoops sampling;
};

namespace avx2 {
extern const VectorLoops kVectorLoops;
}
namespace avx512 {
extern const VectorLoops kVectorLoops;
}

}  // namespace nibble::cpu
