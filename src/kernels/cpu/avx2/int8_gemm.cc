// Without VNNI: vpmaddubsw makes 16-bit sums of two products, vpmaddwd ends in 32 bits once a
// block.
#include "kernels/cpu/avx2/int8_gemm.h"

namespace nibble::cpu::avx2 {
namespace {

// Here and now: a compiler that is free to regroup these sums runs out of registers.
__m256i add_products(__m256i sum, __m256i weights, __m256i activations) {
  sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(weights, activations));
  asm("" : "+x"(sum));
  return sum;
}

// -12 times the sum over k % 4 in {0, 1} (low half) and {2, 3}: what either 16-bit lane sees.
int32_t start_of(__m128i codes) {
  __m128i pairs = _mm_maddubs_epi16(_mm_set1_epi8(1), codes);
  pairs = _mm_add_epi16(pairs, _mm_shuffle_epi32(pairs, 0x4E));
  pairs = _mm_add_epi16(pairs, _mm_shuffle_epi32(pairs, 0xB1));
  return _mm_cvtsi128_si32(_mm_mullo_epi16(pairs, _mm_set1_epi16(-12)));
}

// Panels count in units of 2^-10, which is taken from the activations' scales: what is summed is
// then no larger than the result.
constexpr float kPanelUnit = 0x1p10f;

template <bool kForPanels>
void pack(const float* a, int64_t k, int token, int tokens, uint8_t* group) {
  pack_scaled(a, k, token, tokens, kForPanels ? 1.0f / kPanelUnit : 1.0f, group);
}

__m256 to_float(__m256i sum) {
  return _mm256_cvtepi32_ps(_mm256_madd_epi16(sum, _mm256_set1_epi16(1)));
}

// The vpmaddwd that ends a block's sum can scale it as well, where 15 bits hold the scales of a
// tile as integers: a multiplication less, of twelve instructions. A panel begins with what tells.
struct alignas(64) PanelHead {
  bool factors;  // scales are pairs of 16-bit integers, not fp32
  float unit;
};

struct PlainEnd {
  static constexpr bool kScales = false;
  static __m256 to_float(__m256i sum, const float*) { return avx2::to_float(sum); }
};
struct ScalingEnd {
  static constexpr bool kScales = true;
  static __m256 to_float(__m256i sum, const float* factors) {
    return _mm256_cvtepi32_ps(_mm256_madd_epi16(sum, load(factors)));
  }
};

void multiply(const TileBlock& block) {
  const PanelHead& head = *reinterpret_cast<const PanelHead*>(block.b);
  TileBlock panel = block;
  panel.b += sizeof(PanelHead);
  if (head.factors) return multiply_panels<ScalingEnd>(panel, head.unit);
  multiply_panels<PlainEnd>(panel, head.unit);
}

// How the scales of a tile become integers.
struct Factors {
  bool fit;  // in 15 bits
  int base;  // NVFP4: a factor of 1 is a scale of 2^(base - 9); MXFP4: it is the scale coded so
};

int largest_of(__m128i bytes) {
  alignas(16) uint8_t lane[16];
  _mm_store_si128(reinterpret_cast<__m128i*>(lane), bytes);
  int largest = 0;
  for (const int x : lane) largest = x > largest ? x : largest;
  return largest;
}

template <WeightFormat kFormat>
Factors factors_of(const uint8_t* scales, int64_t blocks) {
  constexpr bool kNvfp4 = kFormat == WeightFormat::kNvfp4;
  __m128i high = _mm_setzero_si128();
  __m128i low = _mm_setzero_si128();  // 255 less the smallest, of NVFP4's those above zero
  for (int64_t b = 0; b < blocks; ++b) {
    const __m128i s = _mm_loadu_si128(reinterpret_cast<const __m128i*>(scales) + b);
    __m128i rest = _mm_xor_si128(s, _mm_set1_epi8(-1));
    if (kNvfp4) rest = _mm_andnot_si128(_mm_cmpeq_epi8(s, _mm_setzero_si128()), rest);
    high = _mm_max_epu8(high, s);
    low = _mm_max_epu8(low, rest);
  }
  const int highest = largest_of(high);
  const int lowest = 255 - largest_of(low);
  if (!kNvfp4) return {highest - lowest <= 14 && lowest <= 240, lowest};
  // Exponent e stands for 8 to 15 times 2^(e - 1) times 2^-9: of more than 12, 15 bits hold none
  // but the upper part, and the lower bits are zeros from exponent base + 1 on.
  const int base = highest / 8 > 12 ? highest / 8 - 12 : 0;
  return {base == 0 || lowest / 8 > base, base};
}

// The factors of 8 rows, each twice.
template <WeightFormat kFormat>
__m256 widen_factors(const uint8_t* p, int base) {
  __m256i s = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  if constexpr (kFormat == WeightFormat::kNvfp4) {
    const float unit = static_cast<float>(1 << (10 - base));  // codes are doubled
    s = _mm256_cvtps_epi32(_mm256_mul_ps(widen_scales<kFormat>(p), _mm256_set1_ps(unit)));
  } else {
    s = _mm256_sllv_epi32(_mm256_set1_epi32(1), _mm256_sub_epi32(s, _mm256_set1_epi32(base)));
  }
  return _mm256_castsi256_ps(_mm256_or_si256(s, _mm256_slli_epi32(s, 16)));
}

template <WeightFormat kFormat>
void widen_with_head(const uint8_t* tile, int64_t k, uint8_t* panel) {
  const uint8_t* const scales = tile + kTile / 2 * k;
  const Factors f = factors_of<kFormat>(scales, k / (kFormat == WeightFormat::kNvfp4 ? 16 : 32));
  PanelHead& head = *reinterpret_cast<PanelHead*>(panel);
  panel += sizeof(PanelHead);
  head.factors = f.fit;
  if (!f.fit) {
    head.unit = kPanelUnit;
    return widen_tile<kFormat>(tile, k, panel, widen_scales<kFormat>);
  }
  // What a factor of 1 stands for, times 2^10: NVFP4's 2^(base - 10), MXFP4's 2^(base - 128).
  const int exponent = f.base + (kFormat == WeightFormat::kNvfp4 ? 0 : -118);
  head.unit = __builtin_bit_cast(float, (exponent + 127) << 23);
  widen_tile<kFormat>(tile, k, panel,
                      [&](const uint8_t* p) { return widen_factors<kFormat>(p, f.base); });
}

void widen(WeightFormat format, const uint8_t* tile, int64_t k, uint8_t* panel) {
  if (format == WeightFormat::kNvfp4) {
    return widen_with_head<WeightFormat::kNvfp4>(tile, k, panel);
  }
  widen_with_head<WeightFormat::kMxfp4>(tile, k, panel);
}

}  // namespace

const TileLoops kInt8Tiles = {.max_tokens = 4,
                              .best_up_to = 4,
                              .max_tiles = 1,
                              .k_multiple = kBlock,
                              .a_bytes = sizeof(ActBlock),
                              .panel_bytes = 0,
                              .pack = pack<false>,
                              .widen = nullptr,
                              .multiply = multiply_tiles};
const TileLoops kInt8Panels = {.max_tokens = 3,
                               .max_tiles = 1,
                               .k_multiple = kBlock,
                               .a_bytes = sizeof(ActBlock),
                               .panel_bytes = sizeof(PanelBlock),
                               .panel_head_bytes = sizeof(PanelHead),
                               .pack = pack<true>,
                               .widen = widen,
                               .multiply = multiply};

}  // namespace nibble::cpu::avx2
