#include <immintrin.h>

#include "kernels/cpu/tile_loops.h"
#include "kernels/cpu/unroll.h"

namespace nibble::cpu::avx2 {
namespace {

// Eight codes a lane, lowest k in the lowest nibble -> bytes of codes k and k + 4.
__m256i interleave(__m256i codes) {
  const __m256i nibble = _mm256_set1_epi8(15);
  __m256i even = _mm256_and_si256(codes, nibble);
  __m256i odd = _mm256_and_si256(_mm256_srli_epi16(codes, 4), nibble);
  even = _mm256_or_si256(even, _mm256_srli_epi32(even, 12));
  odd = _mm256_or_si256(odd, _mm256_srli_epi32(odd, 12));
  const __m256i both = _mm256_blend_epi16(even, _mm256_slli_epi32(odd, 16), 0xAA);
  const __m256i order = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15));
  return _mm256_shuffle_epi8(both, order);
}

// Lane j of x[i] -> lane i of x[j].
void transpose(__m256i x[8]) {
  __m256i y[8];
  NIBBLE_UNROLL
  for (int i = 0; i < 8; i += 2) {
    y[i] = _mm256_unpacklo_epi32(x[i], x[i + 1]);
    y[i + 1] = _mm256_unpackhi_epi32(x[i], x[i + 1]);
  }
  NIBBLE_UNROLL
  for (int i = 0; i < 8; i += 4) {
    NIBBLE_UNROLL
    for (int j = 0; j < 2; ++j) {
      x[i + 2 * j] = _mm256_unpacklo_epi64(y[i + j], y[i + j + 2]);
      x[i + 2 * j + 1] = _mm256_unpackhi_epi64(y[i + j], y[i + j + 2]);
    }
  }
  NIBBLE_UNROLL
  for (int i = 0; i < 4; ++i) {
    y[i] = _mm256_permute2x128_si256(x[i], x[i + 4], 0x20);
    y[i + 4] = _mm256_permute2x128_si256(x[i], x[i + 4], 0x31);
  }
  NIBBLE_UNROLL
  for (int i = 0; i < 8; ++i) x[i] = y[i];
}

}  // namespace

void pack_codes(const uint8_t* codes, int64_t row_bytes, int64_t chunks, uint8_t* tile) {
  for (int64_t c = 0; c < chunks; ++c, codes += 32, tile += 8 * 64) {
    NIBBLE_UNROLL
    for (int half = 0; half < 2; ++half) {
      __m256i x[8];
      NIBBLE_UNROLL
      for (int r = 0; r < 8; ++r) {
        x[r] = interleave(_mm256_loadu_si256(
            reinterpret_cast<const __m256i*>(codes + (8 * half + r) * row_bytes)));
      }
      transpose(x);
      NIBBLE_UNROLL
      for (int i = 0; i < 8; ++i) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(tile + 64 * i + 32 * half), x[i]);
      }
    }
  }
}

}  // namespace nibble::cpu::avx2
