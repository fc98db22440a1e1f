// int8 x e2m1 with vpdpbusd: 16 rows in the 16 lanes, four of k a step. As in avx2/int8_gemm.h,
// codes become 2 * e2m1 + 12 and the accumulator starts with what the offset adds; a block's sum is
// exact. One token streams the weights at the speed of memory; for many, scaling each block in fp32
// costs as much as its dot products, and chips that multiply bf16 do better in the bf16 mode.
#include <immintrin.h>

#include "kernels/cpu/tile_loops.h"
#include "kernels/cpu/tile_prefetch.h"
#include "kernels/cpu/unroll.h"

namespace nibble::cpu::avx512 {
namespace {

constexpr int kBlock = 16;
constexpr int kTile = 16;
constexpr int kMaxTokens = 8;

// 16 packed activations.
struct ActBlock {
  int8_t codes[kBlock];
  float scale;
  int32_t start;  // of the accumulators: -12 times the sum of the codes
};

__m512i broadcast(const void* p) {
  int32_t word;
  __builtin_memcpy(&word, p, sizeof(word));
  return _mm512_set1_epi32(word);
}

void pack(const float* a, int64_t k, int token, int tokens, uint8_t* group) {
  ActBlock* out = reinterpret_cast<ActBlock*>(group) + token;
  for (int64_t i = 0; i < k; i += kBlock, out += tokens) {
    const __m512 x = _mm512_loadu_ps(a + i);
    // Magnitudes compare as integers, so that a NaN is the largest of all.
    const __m512i magnitude =
        _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7FFFFFFF));
    const uint32_t amax_bits = _mm512_reduce_max_epu32(magnitude);
    const float amax = __builtin_bit_cast(float, amax_bits);
    const bool finite = amax_bits < 0x7F800000u;
    __m512i codes = _mm512_setzero_si512();
    out->scale = finite ? 0.0f : __builtin_nanf("");
    if (finite && amax >= 0x1p-100f) {  // as formats/int8_block.h
      codes = _mm512_cvtps_epi32(_mm512_mul_ps(x, _mm512_set1_ps(127.0f / amax)));
      out->scale = amax / 127.0f;
    }
    out->start = -12 * _mm512_reduce_add_epi32(codes);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out->codes), _mm512_cvtepi32_epi8(codes));
  }
}

// Scales of 16 rows; half of them, because codes are doubled.
template <WeightFormat kFormat>
__m512 widen_scales(const uint8_t* p) {
  __m512i s = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  if constexpr (kFormat == WeightFormat::kNvfp4) {
    // e4m3 in fp32's place; 2^120 makes up for the exponents' biases, exactly for subnormals too.
    s = _mm512_slli_epi32(s, 20);
    return _mm512_mul_ps(_mm512_castsi512_ps(s), _mm512_set1_ps(0x1p119f));
  }
  s = _mm512_max_epi32(_mm512_slli_epi32(s, 23), _mm512_set1_epi32(0x00400000));  // 2^-127
  return _mm512_mul_ps(_mm512_castsi512_ps(s), _mm512_set1_ps(0.5f));
}

// kTiles tiles from `first_tile` on against kTokens.
template <WeightFormat kFormat, int kTokens, int kTiles>
void multiply_tile(const TileBlock& block, int first_tile) {
  constexpr int kShift = kFormat == WeightFormat::kMxfp4 ? 1 : 0;  // int8 blocks per scale, log2
  // vpermb looks at six bits: with the table four times over, a code needs no mask.
  const __m512i table = _mm512_broadcast_i32x4(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24,  //
                                                             12, 11, 10, 9, 8, 6, 4, 0));
  const uint8_t* const tiles = block.b + first_tile * block.b_stride;
  const uint8_t* const scales = tiles + kTile / 2 * block.k;
  const ActBlock* a = reinterpret_cast<const ActBlock*>(block.a);
  __m512 acc[kTiles][kTokens] = {};
  for (int64_t b = 0; b < block.k / kBlock; ++b, a += kTokens) {
    NIBBLE_UNROLL
    for (int i = 0; i < kTiles; ++i) {
      prefetch_tile<kFormat>(tiles + i * block.b_stride, b);
      const uint8_t* const codes = tiles + i * block.b_stride + b * 128;
      const __m512i x0 = _mm512_loadu_si512(codes);
      const __m512i x1 = _mm512_loadu_si512(codes + 64);
      const __m512i w[4] = {_mm512_permutexvar_epi8(x0, table),
                            _mm512_permutexvar_epi8(_mm512_srli_epi16(x0, 4), table),
                            _mm512_permutexvar_epi8(x1, table),
                            _mm512_permutexvar_epi8(_mm512_srli_epi16(x1, 4), table)};
      const __m512 scale =
          widen_scales<kFormat>(scales + i * block.b_stride + (b >> kShift) * kTile);
      NIBBLE_UNROLL
      for (int t = 0; t < kTokens; ++t) {
        __m512i sum = broadcast(&a[t].start);
        NIBBLE_UNROLL
        for (int j = 0; j < 4; ++j) {
          sum = _mm512_dpbusd_epi32(sum, w[j], broadcast(a[t].codes + 4 * j));
        }
        acc[i][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum),
                                    _mm512_mul_ps(scale, _mm512_set1_ps(a[t].scale)), acc[i][t]);
      }
    }
  }
  NIBBLE_UNROLL
  for (int i = 0; i < kTiles; ++i) {
    const int first = (first_tile + i) * kTile;
    const int rows = block.rows - first;
    const __mmask16 mask = static_cast<__mmask16>(rows >= kTile ? 0xFFFF : (1 << rows) - 1);
    NIBBLE_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      __m512 x = _mm512_mul_ps(acc[i][t], _mm512_loadu_ps(block.alpha + first));
      if (block.c != nullptr) {
        x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(mask, block.c + t * block.c_stride + first));
      }
      _mm512_mask_storeu_ps(block.d + t * block.d_stride + first, mask, x);
    }
  }
}

template <WeightFormat kFormat, int kTokens = kMaxTokens>
void multiply_tile_of(const TileBlock& block) {
  if constexpr (kTokens > 1) {
    if (block.tokens < kTokens) return multiply_tile_of<kFormat, kTokens - 1>(block);
  }
  // Two tiles at once share the loads of the activations and hide each other's latency, as long as
  // their sums and codes fit the registers.
  if constexpr (kTokens <= 3) {
    if (block.tiles == 2) return multiply_tile<kFormat, kTokens, 2>(block, 0);
  }
  for (int i = 0; i < block.tiles; ++i) multiply_tile<kFormat, kTokens, 1>(block, i);
}

void multiply(const TileBlock& block) {
  if (block.format == WeightFormat::kNvfp4) return multiply_tile_of<WeightFormat::kNvfp4>(block);
  multiply_tile_of<WeightFormat::kMxfp4>(block);
}

}  // namespace

const TileLoops kInt8Tiles = {.max_tokens = kMaxTokens,
                              .max_tiles = 2,
                              .k_multiple = kBlock,
                              .a_bytes = sizeof(ActBlock),
                              .panel_bytes = 0,
                              .pack = pack,
                              .widen = nullptr,
                              .multiply = multiply};

}  // namespace nibble::cpu::avx512
