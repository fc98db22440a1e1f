// The inner loops of every instruction set, each compiled with its own flags. Those files hold
// nothing but such loops with internal linkage: an inline function of a shared header compiled for
// AVX-512 could be the one that the linker keeps for everybody.
#pragma once

#include <cstdint>

#include "nibble/types.h"

namespace nibble::cpu {

// One or two adjacent tiles against a group of packed rows of A.
struct TileBlock {
  WeightFormat format;
  const uint8_t* b;  // tiles, or the panels that widen() made of them
  int64_t b_stride;  // bytes from one to the next
  int tiles;
  const uint8_t* a;  // the group
  int tokens;
  int64_t k;
  const float* alpha;  // by row of B, [16 * tiles]
  int rows;            // of B that exist: columns of D to write
  float* d;
  int64_t d_stride;
  const float* c;  // null: none
  int64_t c_stride;
};

// One instruction set's inner loops for one activation mode. A is packed in groups of up to
// max_tokens rows whose elements interleave, so that a loop walks one pointer.
struct TileLoops {
  int max_tokens;
  int best_up_to = 0;  // rows of A, where there are other loops for more
  int max_tiles;
  int k_multiple;            // packed rows and panels are padded with zeros to a multiple of this
  int a_bytes;               // of one packed row per 16 of k
  int panel_bytes;           // of one widened tile per 16 of k; 0: multiply() reads tiles
  int panel_head_bytes = 0;  // before them, a multiple of 64
  // Packs row `token` of a group of `tokens`.
  void (*pack)(const float* a, int64_t k, int token, int tokens, uint8_t* group);
  void (*widen)(WeightFormat format, const uint8_t* tile, int64_t k, uint8_t* panel);
  void (*multiply)(const TileBlock& block);
};

namespace avx2 {
// Codes of 16 whole rows, `chunks` times 64 of them, to the layout of tiles.h.
void pack_codes(const uint8_t* codes, int64_t row_bytes, int64_t chunks, uint8_t* tile);

extern const TileLoops kInt8Tiles;      // int8, up to 4 tokens, weights as they lie
extern const TileLoops kInt8Panels;     // int8, many tokens
extern const TileLoops kVnniInt8Tiles;  // the same with AVX-VNNI
extern const TileLoops kVnniInt8Panels;
extern const TileLoops kExactTiles;   // fp32 activations as given, a few tokens
extern const TileLoops kExactPanels;  // many
extern const TileLoops kBf16Tiles;    // rounded to bf16, multiplied in fp32
extern const TileLoops kBf16Panels;
}  // namespace avx2

namespace avx512 {
extern const TileLoops kInt8Tiles;   // vpdpbusd
extern const TileLoops kExactTiles;  // as those of avx2
extern const TileLoops kExactPanels;
extern const TileLoops kBf16Tiles;
extern const TileLoops kBf16Panels;
extern const TileLoops kBf16DotTiles;   // vdpbf16ps, a few tokens
extern const TileLoops kBf16DotPanels;  // many
}  // namespace avx512

namespace amx {
extern const TileLoops kBf16Panels;  // tdpbf16ps
}  // namespace amx

}  // namespace nibble::cpu
