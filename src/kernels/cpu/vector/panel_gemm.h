// fp32 GEMM over widened tiles: a panel holds, k by k, the values of 16 rows (code times block
// scale, exact). For activations that must not be quantized, where exactness and not speed counts,
// and for the bf16 mode on chips that multiply no bf16. Included after a Vec.
#pragma once

#include "kernels/cpu/tile_loops.h"
#include "kernels/cpu/unroll.h"

namespace nibble::cpu {
namespace {

constexpr int kPanelRows = 16;
constexpr int kPanelTiles = Vec::kWidth / 8;                        // 16 rows are two AVX2 vectors
constexpr int kPanelVecs = kPanelTiles * kPanelRows / Vec::kWidth;  // two either way
constexpr int kPanelTokens = Vec::kRegisters / 2 - Vec::kRegisters / 8;  // 6 or 12: 3/4 hold sums

// An element of A by token: [k][tokens].
void pack_exact(const float* a, int64_t k, int token, int tokens, uint8_t* group) {
  float* out = reinterpret_cast<float*>(group) + token;
  for (int64_t i = 0; i < k; ++i) out[i * tokens] = a[i];
}

void pack_bf16(const float* a, int64_t k, int token, int tokens, uint8_t* group) {
  float* out = reinterpret_cast<float*>(group) + token;
  for (int64_t i = 0; i < k; i += Vec::kWidth) {
    float rounded[Vec::kWidth];
    Vec::store(rounded, Vec::round_to_bf16(Vec::load(a + i)));
    for (int j = 0; j < Vec::kWidth; ++j) out[(i + j) * tokens] = rounded[j];
  }
}

template <int kNibble>
void widen_nibble(Vec::I words, Vec::F scale, float* out) {
  // Even nibbles are k = 0 .. 3, odd ones 4 .. 7.
  constexpr int k = kNibble / 2 + kNibble % 2 * 4;
  Vec::store(out + k * kPanelRows, Vec::mul(Vec::template from_e2m1<kNibble>(words), scale));
}

void widen_panel(WeightFormat format, const uint8_t* tile, int64_t k, uint8_t* panel) {
  const uint8_t* const scales = tile + kPanelRows / 2 * k;
  const int64_t block = format == WeightFormat::kNvfp4 ? 16 : 32;
  float* const out = reinterpret_cast<float*>(panel);
  for (int64_t i = 0; i < k; i += 8) {
    for (int r = 0; r < kPanelRows; r += Vec::kWidth) {
      const uint8_t* s = scales + i / block * kPanelRows + r;
      const Vec::F scale =
          format == WeightFormat::kNvfp4 ? Vec::nvfp4_scales(s) : Vec::mxfp4_scales(s);
      const Vec::I words = Vec::load_words(tile + i * 8 + 4 * r);
      float* const to = out + i * kPanelRows + r;
      widen_nibble<0>(words, scale, to);
      widen_nibble<1>(words, scale, to);
      widen_nibble<2>(words, scale, to);
      widen_nibble<3>(words, scale, to);
      widen_nibble<4>(words, scale, to);
      widen_nibble<5>(words, scale, to);
      widen_nibble<6>(words, scale, to);
      widen_nibble<7>(words, scale, to);
    }
  }
}

template <int kTokens>
void multiply_panel(const TileBlock& block) {
  const float* b[kPanelVecs];
  NIBBLE_UNROLL
  for (int v = 0; v < kPanelVecs; ++v) {
    const int row = v * Vec::kWidth;
    // Where there is no second tile the first one stands in; nothing of it is stored.
    const int tile = row / kPanelRows < block.tiles ? row / kPanelRows : 0;
    b[v] = reinterpret_cast<const float*>(block.b + tile * block.b_stride) + row % kPanelRows;
  }
  const float* a = reinterpret_cast<const float*>(block.a);
  Vec::F acc[kPanelVecs][kTokens] = {};
  for (int64_t k = 0; k < block.k; ++k, a += kTokens) {
    Vec::F w[kPanelVecs];
    NIBBLE_UNROLL
    for (int v = 0; v < kPanelVecs; ++v) w[v] = Vec::load(b[v] + k * kPanelRows);
    NIBBLE_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      const Vec::F x = Vec::set1(a[t]);
      NIBBLE_UNROLL
      for (int v = 0; v < kPanelVecs; ++v) acc[v][t] = Vec::fma(w[v], x, acc[v][t]);
    }
  }
  NIBBLE_UNROLL
  for (int v = 0; v < kPanelVecs; ++v) {
    const int first = v * Vec::kWidth;
    const int64_t rows = block.rows - first;
    if (rows <= 0) break;
    NIBBLE_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      Vec::F x = Vec::mul(acc[v][t], Vec::load(block.alpha + first));
      if (block.c != nullptr) {
        x = Vec::add(x, Vec::load_some(block.c + t * block.c_stride + first, rows));
      }
      Vec::store_some(block.d + t * block.d_stride + first, rows, x);
    }
  }
}

template <int kTokens = kPanelTokens>
void multiply_panels(const TileBlock& block) {
  if constexpr (kTokens > 1) {
    if (block.tokens < kTokens) return multiply_panels<kTokens - 1>(block);
  }
  multiply_panel<kTokens>(block);
}

constexpr TileLoops panel_loops(void (*pack)(const float*, int64_t, int, int, uint8_t*)) {
  return {.max_tokens = kPanelTokens,
          .max_tiles = kPanelTiles,
          .k_multiple = 16,
          .a_bytes = 16 * sizeof(float),
          .panel_bytes = 16 * kPanelRows * sizeof(float),
          .pack = pack,
          .widen = widen_panel,
          .multiply = multiply_panels<>};
}

}  // namespace
}  // namespace nibble::cpu
