// int8 x e2m1 with 256-bit vectors; see avx2/int8_gemm.cc and avx2/int8_gemm_vnni.cc, which differ
// in how one step of the dot product is taken, in how it begins and in how it ends.
//
// Codes become 2 * e2m1 + 12, unsigned bytes from 0 to 24, because both vpmaddubsw and vpdpbusd
// multiply unsigned by signed. The sum over a block of 12 * a is taken off again: it is what an
// accumulator starts with. All of it is exact: a block's sum stays within 16 * 12 * 127 = 24384,
// and the 16-bit lanes, which hold half a block each, may wrap on the way there.
#pragma once

#include <immintrin.h>

#include "kernels/cpu/tile_loops.h"
#include "kernels/cpu/tile_prefetch.h"
#include "kernels/cpu/unroll.h"

namespace nibble::cpu::avx2 {
namespace {

constexpr int kBlock = 16;
constexpr int kTile = 16;

// 16 packed activations.
struct ActBlock {
  int8_t codes[kBlock];
  float scale;
  int32_t start;  // of the accumulators
};

// A block of a widened tile: step by step of 4 along k the bytes of 16 rows, then their scales.
struct PanelBlock {
  uint8_t codes[4][4 * kTile];
  float scales[kTile];
};

__m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
__m256i broadcast(const void* p) {
  int32_t word;
  __builtin_memcpy(&word, p, sizeof(word));
  return _mm256_set1_epi32(word);
}

float quantize(const float* x, __m128i& codes) {
  const __m256 x0 = _mm256_loadu_ps(x);
  const __m256 x1 = _mm256_loadu_ps(x + 8);
  // Magnitudes compare as integers, so that a NaN is the largest of all.
  const __m256i magnitude = _mm256_set1_epi32(0x7FFFFFFF);
  const __m256i both = _mm256_max_epu32(_mm256_and_si256(_mm256_castps_si256(x0), magnitude),
                                        _mm256_and_si256(_mm256_castps_si256(x1), magnitude));
  __m128i m = _mm_max_epu32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
  m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4E));
  m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xB1));
  const uint32_t amax_bits = static_cast<uint32_t>(_mm_cvtsi128_si32(m));
  const float amax = _mm_cvtss_f32(_mm_castsi128_ps(m));
  const bool finite = amax_bits < 0x7F800000u;
  if (!finite || amax < 0x1p-100f) {  // as formats/int8_block.h
    codes = _mm_setzero_si128();
    return finite ? 0.0f : __builtin_nanf("");
  }
  const __m256 inverse = _mm256_set1_ps(127.0f / amax);
  const __m256i i0 = _mm256_cvtps_epi32(_mm256_mul_ps(x0, inverse));
  const __m256i i1 = _mm256_cvtps_epi32(_mm256_mul_ps(x1, inverse));
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(i0, i1), 0xD8);
  codes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  return amax / 127.0f;
}

// What a block's accumulators start with, and one step of its dot product: 4 of k for 8 rows.
int32_t start_of(__m128i codes);
__m256i add_products(__m256i sum, __m256i weights, __m256i activations);

void pack_scaled(const float* a, int64_t k, int token, int tokens, float unit, uint8_t* group) {
  ActBlock* out = reinterpret_cast<ActBlock*>(group) + token;
  for (int64_t i = 0; i < k; i += kBlock, out += tokens) {
    __m128i codes;
    out->scale = quantize(a + i, codes) * unit;
    out->start = start_of(codes);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out->codes), codes);
  }
}

__m256i dot(const __m256i* step, const ActBlock& a) {
  __m256i sum = broadcast(&a.start);
  NIBBLE_UNROLL
  for (int i = 0; i < 4; ++i) sum = add_products(sum, step[i], broadcast(a.codes + 4 * i));
  return sum;
}

// Of the 16 rows of a panel. GCC would make it a function of its own, sums in memory.
template <int kTokens>
[[gnu::always_inline]] inline void dots(const PanelBlock& w, const ActBlock* a,
                                        __m256i (&sum)[2][kTokens]) {
  NIBBLE_UNROLL
  for (int t = 0; t < kTokens; ++t) sum[0][t] = sum[1][t] = broadcast(&a[t].start);
  NIBBLE_UNROLL
  for (int i = 0; i < 4; ++i) {
    const __m256i w0 = load(w.codes[i]);
    const __m256i w1 = load(w.codes[i] + 32);
    NIBBLE_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      const __m256i x = broadcast(a[t].codes + 4 * i);
      sum[0][t] = add_products(sum[0][t], w0, x);
      sum[1][t] = add_products(sum[1][t], w1, x);
    }
  }
}

struct Widened {
  __m256i step[4];  // 8 rows, 4 of k each
};

// Bytes of codes -> bytes of 2 * e2m1 + 12.
Widened widen_codes(const uint8_t* tile, int64_t block, int half) {
  const __m256i table =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24,  //
                                                12, 11, 10, 9, 8, 6, 4, 0));
  const __m256i nibble = _mm256_set1_epi8(15);
  Widened w;
  NIBBLE_UNROLL
  for (int p = 0; p < 2; ++p) {
    const __m256i x = load(tile + block * 128 + p * 64 + half * 32);
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble);
    w.step[2 * p] = _mm256_shuffle_epi8(table, _mm256_and_si256(x, nibble));
    w.step[2 * p + 1] = _mm256_shuffle_epi8(table, high);
  }
  return w;
}

// Scales of 8 rows; half of them, because codes are doubled.
template <WeightFormat kFormat>
__m256 widen_scales(const uint8_t* p) {
  __m256i s = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  if constexpr (kFormat == WeightFormat::kNvfp4) {
    // e4m3 in fp32's place; 2^120 makes up for the exponents' biases, exactly for subnormals too.
    s = _mm256_slli_epi32(s, 20);
    return _mm256_mul_ps(_mm256_castsi256_ps(s), _mm256_set1_ps(0x1p119f));
  }
  s = _mm256_max_epi32(_mm256_slli_epi32(s, 23), _mm256_set1_epi32(0x00400000));  // 2^-127
  return _mm256_mul_ps(_mm256_castsi256_ps(s), _mm256_set1_ps(0.5f));
}

// A block's dot product in fp32.
__m256 to_float(__m256i sum);

// As many as `rows` (of 8) lanes of D = alpha * sum + C.
void store(const TileBlock& block, int token, int first, __m256 sum) {
  __m256 x = _mm256_mul_ps(sum, _mm256_loadu_ps(block.alpha + first));
  float* d = block.d + token * block.d_stride + first;
  const float* c = block.c == nullptr ? nullptr : block.c + token * block.c_stride + first;
  const int rows = block.rows - first;
  if (rows >= 8) {
    if (c != nullptr) x = _mm256_add_ps(x, _mm256_loadu_ps(c));
    _mm256_storeu_ps(d, x);
    return;
  }
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(rows), lanes);
  if (c != nullptr) x = _mm256_add_ps(x, _mm256_maskload_ps(c, mask));
  _mm256_maskstore_ps(d, mask, x);
}

// kHalves of a tile against kTokens, weights as they lie.
template <WeightFormat kFormat, int kTokens, int kHalves>
void multiply_tile(const TileBlock& block, int first_half) {
  constexpr int kShift = kFormat == WeightFormat::kMxfp4 ? 1 : 0;  // int8 blocks per scale, log2
  const uint8_t* const tile = block.b;
  const uint8_t* const scales = tile + kTile / 2 * block.k + first_half * 8;
  const ActBlock* a = reinterpret_cast<const ActBlock*>(block.a);
  const int64_t blocks = block.k / kBlock;
  __m256 acc[kHalves][kTokens] = {};
  for (int64_t b = 0; b < blocks; ++b, a += kTokens) {
    if (first_half == 0) prefetch_tile<kFormat>(tile, b);
    NIBBLE_UNROLL
    for (int h = 0; h < kHalves; ++h) {
      const Widened w = widen_codes(tile, b, first_half + h);
      const __m256 scale = widen_scales<kFormat>(scales + (b >> kShift) * kTile + h * 8);
      NIBBLE_UNROLL
      for (int t = 0; t < kTokens; ++t) {
        acc[h][t] =
            _mm256_fmadd_ps(to_float(dot(w.step, a[t])),
                            _mm256_mul_ps(scale, _mm256_broadcast_ss(&a[t].scale)), acc[h][t]);
      }
    }
  }
  NIBBLE_UNROLL
  for (int h = 0; h < kHalves; ++h) {
    const int first = (first_half + h) * 8;
    if (first >= block.rows) continue;
    NIBBLE_UNROLL
    for (int t = 0; t < kTokens; ++t) store(block, t, first, acc[h][t]);
  }
}

template <WeightFormat kFormat>
void multiply_tile_of(const TileBlock& block) {
  switch (block.tokens) {
    case 1:
      return multiply_tile<kFormat, 1, 2>(block, 0);
    case 2:
      multiply_tile<kFormat, 2, 1>(block, 0);
      return multiply_tile<kFormat, 2, 1>(block, 1);
    case 3:
      multiply_tile<kFormat, 3, 1>(block, 0);
      return multiply_tile<kFormat, 3, 1>(block, 1);
    default:
      multiply_tile<kFormat, 4, 1>(block, 0);
      return multiply_tile<kFormat, 4, 1>(block, 1);
  }
}

void multiply_tiles(const TileBlock& block) {
  if (block.format == WeightFormat::kNvfp4) return multiply_tile_of<WeightFormat::kNvfp4>(block);
  multiply_tile_of<WeightFormat::kMxfp4>(block);
}

// scales_of widens the scales of 8 rows.
template <WeightFormat kFormat, class Scales>
void widen_tile(const uint8_t* tile, int64_t k, uint8_t* panel, Scales scales_of) {
  constexpr int kShift = kFormat == WeightFormat::kMxfp4 ? 1 : 0;
  const uint8_t* const scales = tile + kTile / 2 * k;
  PanelBlock* out = reinterpret_cast<PanelBlock*>(panel);
  for (int64_t b = 0; b < k / kBlock; ++b, ++out) {
    NIBBLE_UNROLL
    for (int h = 0; h < 2; ++h) {
      const Widened w = widen_codes(tile, b, h);
      NIBBLE_UNROLL
      for (int i = 0; i < 4; ++i) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out->codes[i] + 32 * h), w.step[i]);
      }
      _mm256_storeu_ps(out->scales + 8 * h, scales_of(scales + (b >> kShift) * kTile + 8 * h));
    }
  }
}

// 16 rows x kTokens. End::to_float makes a block's sums fp32, with the scales of the 8 rows in them
// where End::kScales; they count in `unit`s.
template <class End, int kTokens>
void multiply_panel(const TileBlock& block, float unit) {
  const PanelBlock* w = reinterpret_cast<const PanelBlock*>(block.b);
  const ActBlock* a = reinterpret_cast<const ActBlock*>(block.a);
  const int64_t blocks = block.k / kBlock;
  __m256 acc[2][kTokens] = {};
  for (int64_t b = 0; b < blocks; ++b, ++w, a += kTokens) {
    __m256i sum[2][kTokens];
    dots(*w, a, sum);
    NIBBLE_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      const __m256 a_scale = _mm256_broadcast_ss(&a[t].scale);
      NIBBLE_UNROLL
      for (int h = 0; h < 2; ++h) {
        __m256 scale = a_scale;
        if (!End::kScales) scale = _mm256_mul_ps(scale, _mm256_loadu_ps(w->scales + 8 * h));
        acc[h][t] = _mm256_fmadd_ps(End::to_float(sum[h][t], w->scales + 8 * h), scale, acc[h][t]);
      }
    }
  }
  NIBBLE_UNROLL
  for (int h = 0; h < 2; ++h) {
    if (8 * h >= block.rows) break;
    NIBBLE_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      store(block, t, 8 * h, _mm256_mul_ps(acc[h][t], _mm256_set1_ps(unit)));
    }
  }
}

template <class End>
void multiply_panels(const TileBlock& block, float unit) {
  switch (block.tokens) {
    case 1:
      return multiply_panel<End, 1>(block, unit);
    case 2:
      return multiply_panel<End, 2>(block, unit);
    default:
      return multiply_panel<End, 3>(block, unit);
  }
}

}  // namespace
}  // namespace nibble::cpu::avx2
