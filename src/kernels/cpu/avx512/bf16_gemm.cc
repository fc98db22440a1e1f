// bf16 activations with vdpbf16ps: for many tokens with weights widened once per call and tile, 32
// rows x 12 tokens in registers; for a few with tiles as they lie.
#include "kernels/cpu/avx512/bf16_panel.h"
#include "kernels/cpu/unroll.h"
#include "kernels/cpu/vector/tile_dot.h"

namespace nibble::cpu::avx512 {
namespace {

constexpr int kMaxTokens = 12;

// Rounds; kBytes of each token in turns.
template <int kBytes>
void pack(const float* a, int64_t k, int token, int tokens, uint8_t* group) {
  uint8_t* out = group + kBytes * token;
  for (int64_t i = 0; i < k; i += 16) {
    const __m512i bits = _mm512_castps_si512(Vec::round_to_bf16(_mm512_loadu_ps(a + i)));
    uint16_t half[16];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(half),
                        _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
    for (int j = 0; j < 16; j += kBytes / 2, out += kBytes * tokens) {
      __builtin_memcpy(out, half + j, kBytes);
    }
  }
}

template <int kTokens, int kTiles>
void multiply_panel(const TileBlock& block) {
  const uint8_t* a = block.a;
  __m512 acc[kTiles][kTokens] = {};
  for (int64_t pair = 0; pair < block.k / 2; ++pair, a += 4 * kTokens) {
    __m512bh w[kTiles];
    NIBBLE_UNROLL
    for (int i = 0; i < kTiles; ++i) {
      w[i] = (__m512bh)_mm512_loadu_si512(block.b + i * block.b_stride + pair * kPairBytes);
    }
    NIBBLE_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      int32_t word;
      __builtin_memcpy(&word, a + 4 * t, sizeof(word));
      const __m512bh x = (__m512bh)_mm512_set1_epi32(word);
      NIBBLE_UNROLL
      for (int i = 0; i < kTiles; ++i) acc[i][t] = _mm512_dpbf16_ps(acc[i][t], w[i], x);
    }
  }
  NIBBLE_UNROLL
  for (int i = 0; i < kTiles; ++i) {
    NIBBLE_UNROLL
    for (int t = 0; t < kTokens; ++t) store_rows(block, t, 16 * i, acc[i][t]);
  }
}

template <int kTokens = kMaxTokens>
void multiply(const TileBlock& block) {
  if constexpr (kTokens > 1) {
    if (block.tokens < kTokens) return multiply<kTokens - 1>(block);
  }
  if (block.tiles == 2) return multiply_panel<kTokens, 2>(block);
  multiply_panel<kTokens, 1>(block);
}

// Four of k of one token.
struct DotStep {
  static constexpr int kBytes = 8;
  static __m512 add(__m512 sum, __m512i weights, const uint8_t* a) {
    return _mm512_dpbf16_ps(sum, (__m512bh)weights,
                            (__m512bh)_mm512_castps_si512(Vec::set_pair(a)));
  }
};

}  // namespace

const TileLoops kBf16DotTiles = dot_loops<DotStep>(pack<DotStep::kBytes>);
const TileLoops kBf16DotPanels = {.max_tokens = kMaxTokens,
                                  .max_tiles = 2,
                                  .k_multiple = 16,
                                  .a_bytes = 32,
                                  .panel_bytes = 8 * kPairBytes,
                                  .pack = pack<4>,
                                  .widen = widen_bf16_panel,
                                  .multiply = multiply<>};

}  // namespace nibble::cpu::avx512
