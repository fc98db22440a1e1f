// fp32 activations, as given or rounded to bf16, against tiles as they lie: for the few tokens for
// which a widened panel would be written to be read once. A code becomes the two bytes of its bf16
// value by table, and k and k + 1 of a row share a 32-bit lane until they are multiplied; a block's
// scale meets the sum of its products. Included after a Vec.
#pragma once

#include "kernels/cpu/tile_loops.h"
#include "kernels/cpu/tile_prefetch.h"
#include "kernels/cpu/unroll.h"

namespace nibble::cpu {
namespace {

constexpr int kDotRows = 16;  // of a tile
constexpr int kDotBlock = 16;

// Four of k of one token are two pairs, the even ones first: what meets the low and the high halves
// of the lanes.
struct Fp32Step {
  static constexpr int kBytes = 16;
  static Vec::F add(Vec::F sum, Vec::I weights, const uint8_t* a) {
    sum = Vec::fma(Vec::low_bf16(weights), Vec::set_pair(a), sum);
    return Vec::fma(Vec::high_bf16(weights), Vec::set_pair(a + 8), sum);
  }
};

template <bool kRound>
void pack_pairs(const float* a, int64_t k, int token, int tokens, uint8_t* group) {
  float* out = reinterpret_cast<float*>(group) + 4 * token;
  for (int64_t i = 0; i < k; i += Vec::kWidth) {
    float x[Vec::kWidth];
    Vec::store(x, kRound ? Vec::round_to_bf16(Vec::load(a + i)) : Vec::load(a + i));
    for (int j = 0; j < Vec::kWidth; j += 4, out += 4 * tokens) {
      out[0] = x[j];
      out[1] = x[j + 2];
      out[2] = x[j + 1];
      out[3] = x[j + 3];
    }
  }
}

// Rows [row, row + kVecs * Vec::kWidth) of a tile against kTokens. Within each 128 bits, the first
// sum of a vector of rows holds rows 0 and 1, two lanes each, the second one rows 2 and 3.
template <class Step, WeightFormat kFormat, int kTokens, int kVecs>
void dot_rows(const TileBlock& block, const uint8_t* tile, int row) {
  constexpr int kShift = kFormat == WeightFormat::kMxfp4 ? 1 : 0;  // blocks of 16 per scale, log2
  constexpr uint8_t kLow[16] = {0, 0, 0x80, 0xC0, 0, 0x40, 0x80, 0xC0,
                                0, 0, 0x80, 0xC0, 0, 0x40, 0x80, 0xC0};
  constexpr uint8_t kHigh[16] = {0,    0x3F, 0x3F, 0x3F, 0x40, 0x40, 0x40, 0x40,
                                 0x80, 0xBF, 0xBF, 0xBF, 0xC0, 0xC0, 0xC0, 0xC0};
  const Vec::I low_bytes = Vec::table(kLow);
  const Vec::I high_bytes = Vec::table(kHigh);
  const uint8_t* const scales = tile + kDotRows / 2 * block.k;
  const uint8_t* a = block.a;
  Vec::F total[kVecs][kTokens][2] = {};
  for (int64_t b = 0; b < block.k / kDotBlock; ++b, a += 4 * kTokens * Step::kBytes) {
    if (row == 0) prefetch_tile<kFormat>(tile, b);
    NIBBLE_UNROLL
    for (int v = 0; v < kVecs; ++v) {
      const int first = row + v * Vec::kWidth;
      Vec::F sum[kTokens][2] = {};
      NIBBLE_UNROLL
      for (int half = 0; half < 2; ++half) {
        const Vec::I words = Vec::load_words(tile + b * 128 + half * 64 + 4 * first);
        NIBBLE_UNROLL
        for (int step = 0; step < 2; ++step) {
          const Vec::I codes = step == 0 ? Vec::low_nibbles(words) : Vec::high_nibbles(words);
          const Vec::I low = Vec::lookup(low_bytes, codes);
          const Vec::I high = Vec::lookup(high_bytes, codes);
          const Vec::I w[2] = {Vec::zip_low(low, high), Vec::zip_high(low, high)};
          NIBBLE_UNROLL
          for (int t = 0; t < kTokens; ++t) {
            const uint8_t* const x = a + ((2 * half + step) * kTokens + t) * Step::kBytes;
            sum[t][0] = Step::add(sum[t][0], w[0], x);
            sum[t][1] = Step::add(sum[t][1], w[1], x);
          }
        }
      }
      const uint8_t* const s = scales + (b >> kShift) * kDotRows + first;
      const Vec::F scale =
          kFormat == WeightFormat::kNvfp4 ? Vec::nvfp4_scales(s) : Vec::mxfp4_scales(s);
      const Vec::F twice[2] = {Vec::twice_low(scale), Vec::twice_high(scale)};
      NIBBLE_UNROLL
      for (int t = 0; t < kTokens; ++t) {
        total[v][t][0] = Vec::fma(sum[t][0], twice[0], total[v][t][0]);
        total[v][t][1] = Vec::fma(sum[t][1], twice[1], total[v][t][1]);
      }
    }
  }
  NIBBLE_UNROLL
  for (int v = 0; v < kVecs; ++v) {
    const int first = row + v * Vec::kWidth;
    const int64_t rows = block.rows - first;
    if (rows <= 0) break;
    NIBBLE_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      Vec::F x = Vec::sum_pairs(total[v][t][0], total[v][t][1]);
      x = Vec::mul(x, Vec::load(block.alpha + first));
      if (block.c != nullptr) {
        x = Vec::add(x, Vec::load_some(block.c + t * block.c_stride + first, rows));
      }
      Vec::store_some(block.d + t * block.d_stride + first, rows, x);
    }
  }
}

constexpr int kDotTokens = Vec::kRegisters == 16 ? 2 : 4;

template <class Step, WeightFormat kFormat, int kTokens = kDotTokens>
void dot_tile(const TileBlock& block) {
  if constexpr (kTokens > 1) {
    if (block.tokens < kTokens) return dot_tile<Step, kFormat, kTokens - 1>(block);
  }
  // The sums of several tokens with all rows would not fit 16 registers.
  constexpr int kVecs = kTokens == 1 ? kDotRows / Vec::kWidth : 1;
  for (int row = 0; row < kDotRows; row += kVecs * Vec::kWidth) {
    dot_rows<Step, kFormat, kTokens, kVecs>(block, block.b, row);
  }
}

template <class Step>
void dot_tiles(const TileBlock& block) {
  if (block.format == WeightFormat::kNvfp4) return dot_tile<Step, WeightFormat::kNvfp4>(block);
  dot_tile<Step, WeightFormat::kMxfp4>(block);
}

template <class Step>
constexpr TileLoops dot_loops(void (*pack)(const float*, int64_t, int, int, uint8_t*)) {
  return {.max_tokens = kDotTokens,
          .best_up_to = 4,  // with AVX2 twice two rows still beat a panel
          .max_tiles = 1,
          .k_multiple = kDotBlock,
          .a_bytes = 4 * Step::kBytes,
          .panel_bytes = 0,
          .pack = pack,
          .widen = nullptr,
          .multiply = dot_tiles<Step>};
}

}  // namespace
}  // namespace nibble::cpu
