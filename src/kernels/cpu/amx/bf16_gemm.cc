// bf16 activations with AMX: 32 rows x 32 tokens in four tile registers, 32 of k a step. There is
// no int8 twin: its sums run over the 64 of k that one instruction takes, four blocks with four
// scales, and a block at a time costs more than bf16.
#include "kernels/cpu/avx512/bf16_panel.h"

namespace nibble::cpu::amx {
namespace {

constexpr int kStep = 32;      // of k
constexpr int kRegister = 16;  // tokens or rows of one tile register
constexpr int kLine = 64;      // bytes of a row of a tile register

constexpr int64_t padded(int64_t k) { return (k + kStep - 1) / kStep * kStep; }

// Packed rows lie one after the other.
void pack(const float* a, int64_t k, int token, int, uint8_t* group) {
  uint8_t* out = group + token * padded(k) * 2;
  for (int64_t i = 0; i < padded(k); i += 16, out += 32) {
    const __m512 x = i < k ? _mm512_loadu_ps(a + i) : _mm512_setzero_ps();
    const __m512i bits = _mm512_castps_si512(Vec::round_to_bf16(x));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out),
                        _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
  }
}

void widen(WeightFormat format, const uint8_t* tile, int64_t k, uint8_t* panel) {
  widen_bf16_panel(format, tile, k, panel);
  __builtin_memset(panel + k / 2 * kPairBytes, 0,
                   static_cast<size_t>((padded(k) - k) / 2 * kPairBytes));
}

// Intel's Software Developer's Manual, LDTILECFG.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t line_bytes[16] = {};
  uint8_t rows[16] = {};
};

// Tile registers: 0, 1 the sums of the first 16 tokens with either tile, 2, 3 of the others; 4, 5
// A; 6, 7 B.
void configure(int tokens) {
  TileConfig config;
  const auto set = [&](int index, int rows) {
    config.line_bytes[index] = kLine;
    config.rows[index] = static_cast<uint8_t>(rows);
  };
  const int low = tokens < kRegister ? tokens : kRegister;
  const int high = tokens > kRegister ? tokens - kRegister : 1;
  for (const int index : {0, 1, 4}) set(index, low);
  for (const int index : {2, 3, 5}) set(index, high);
  for (const int index : {6, 7}) set(index, kRegister);
  _tile_loadconfig(&config);
}

void multiply(const TileBlock& block) {
  configure(block.tokens);
  const int64_t line = padded(block.k) * 2;
  const uint8_t* const a0 = block.a;
  const bool second_a = block.tokens > kRegister;
  const uint8_t* const a1 = second_a ? a0 + kRegister * line : a0;
  const uint8_t* const b0 = block.b;
  // A missing second tile is the first one again; its sums are not stored.
  const uint8_t* const b1 = block.tiles == 2 ? b0 + block.b_stride : b0;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t i = 0; i < line / kLine; ++i) {
    _tile_loadd(4, a0 + i * kLine, line);
    _tile_loadd(6, b0 + i * kRegister * kLine, kLine);
    _tile_loadd(7, b1 + i * kRegister * kLine, kLine);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if (second_a) {
      _tile_loadd(5, a1 + i * kLine, line);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  alignas(64) float sums[4][kRegister * kRegister];
  _tile_stored(0, sums[0], kLine);
  _tile_stored(1, sums[1], kLine);
  _tile_stored(2, sums[2], kLine);
  _tile_stored(3, sums[3], kLine);
  _tile_release();
  for (int t = 0; t < block.tokens; ++t) {
    for (int i = 0; i < block.tiles; ++i) {
      const float* sum = sums[t / kRegister * 2 + i] + t % kRegister * kRegister;
      store_rows(block, t, i * kRegister, _mm512_load_ps(sum));
    }
  }
}

}  // namespace

const TileLoops kBf16Panels = {.max_tokens = 2 * kRegister,
                               .max_tiles = 2,
                               .k_multiple = kStep,
                               .a_bytes = 32,
                               .panel_bytes = 8 * kPairBytes,
                               .pack = pack,
                               .widen = widen,
                               .multiply = multiply};

}  // namespace nibble::cpu::amx
