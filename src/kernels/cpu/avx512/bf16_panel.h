// Widened tiles for vdpbf16ps and tdpbf16ps alike: pair by pair along k, the bf16 values of 16
// rows, the even k in the low half of each 32-bit lane. e2m1 x e4m3 has six significant bits at
// most, so nothing is rounded.
#pragma once

#include "kernels/cpu/avx512/vec.h"
#include "kernels/cpu/tile_loops.h"

namespace nibble::cpu {
namespace {

constexpr int kPanelRows = 16;
constexpr int kPairBytes = 4 * kPanelRows;

template <int kLow, int kHigh>
__m512i widen_pair(__m512i words, __m512 scale) {
  const __m512 low = _mm512_mul_ps(Vec::from_e2m1<kLow>(words), scale);
  const __m512 high = _mm512_mul_ps(Vec::from_e2m1<kHigh>(words), scale);
  return _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(low), 16),
                         _mm512_castps_si512(high));
}

inline void widen_bf16_panel(WeightFormat format, const uint8_t* tile, int64_t k, uint8_t* panel) {
  const uint8_t* const scales = tile + kPanelRows / 2 * k;
  const int64_t block = format == WeightFormat::kNvfp4 ? 16 : 32;
  for (int64_t i = 0; i < k; i += 8, panel += 4 * kPairBytes) {
    const uint8_t* s = scales + i / block * kPanelRows;
    const __m512 scale =
        format == WeightFormat::kNvfp4 ? Vec::nvfp4_scales(s) : Vec::mxfp4_scales(s);
    const __m512i words = _mm512_loadu_si512(tile + i * 8);
    _mm512_storeu_si512(panel, widen_pair<0, 2>(words, scale));
    _mm512_storeu_si512(panel + kPairBytes, widen_pair<4, 6>(words, scale));
    _mm512_storeu_si512(panel + 2 * kPairBytes, widen_pair<1, 3>(words, scale));
    _mm512_storeu_si512(panel + 3 * kPairBytes, widen_pair<5, 7>(words, scale));
  }
}

// alpha * sum + C for 16 rows, `first` the first of them in the block.
inline void store_rows(const TileBlock& block, int token, int first, __m512 sum) {
  const int64_t rows = block.rows - first;
  __m512 x = _mm512_mul_ps(sum, _mm512_loadu_ps(block.alpha + first));
  if (block.c != nullptr) {
    x = _mm512_add_ps(x, Vec::load_some(block.c + token * block.c_stride + first, rows));
  }
  Vec::store_some(block.d + token * block.d_stride + first, rows, x);
}

}  // namespace
}  // namespace nibble::cpu
