#include "kernels/sm90/layout.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "formats/e2m1.h"
#include "formats/e4m3.h"
#include "formats/ue8m0.h"
#include "kernels/sm90/widen.h"

namespace nibble::sm90 {
namespace {

constexpr int kSteps = kBlockK / 16;
constexpr int kBinades = kMaxScaleExponent + kScaleBias;  // below a row's largest MXFP4 scale

// Where a bit of a code lies: bit 15 or 8..6 of half `half` of register `reg` of word `word`
// (0 or 1) of a pair, before widen_codes.
struct BitPlace {
  int word;
  int bit;
};
constexpr int kRotation[] = {0, kRotation1, kRotation2};
constexpr int kRestRotation[] = {kRestRotation0, kRestRotation1};
BitPlace bit_place(int word, int reg, int half, int code_bit) {
  const int target = 16 * half + (code_bit == 3 ? 15 : 6 + code_bit);
  if (reg < 3) return {word, (target + 32 - kRotation[reg]) % 32};
  const int rest = (target + 32 - kRestRotation[word]) % 32;
  if ((kRestOfFirst >> rest & 1) != 0) return {0, rest};
  return {1, rest - kRestShift};
}

// Where row `row`, k `k` of a block lies.
struct CodePlace {
  int pair;  // offset of the pair's first word in the block
  int word;
  int reg;
  int half;
};
CodePlace code_place(int row, int k) {
  const int step = k / 16;
  const int lane = row % 8 * 4 + k % 8 / 2;
  return {.pair = step / 4 * 512 + lane * 16 + step % 4 / 2 * 8,
          .word = step % 2,
          .reg = k % 16 / 8 * 2 + row / 8,
          .half = k % 2};
}

uint64_t load_pair(const uint8_t* block, int pair) {
  uint64_t words;
  std::memcpy(&words, block + pair, sizeof(words));
  return words;
}

// A code's bits, spread to where they lie in a pair.
struct SpreadTable {
  uint64_t bits[2][4][2][16] = {};  // by word, register, half and code

  SpreadTable() {
    for (int i = 0; i < 2 * 4 * 2 * 16; ++i) {
      const int word = i / 128, reg = i / 32 % 4, half = i / 16 % 2, code = i % 16;
      for (int b = 0; b < 4; ++b) {
        const BitPlace at = bit_place(word, reg, half, b);
        bits[word][reg][half][code] |= static_cast<uint64_t>(code >> b & 1)
                                       << (32 * at.word + at.bit);
      }
    }
  }
};

void put_code(uint8_t* block, int row, int k, uint32_t code) {
  static const SpreadTable table;
  const CodePlace place = code_place(row, k);
  const uint64_t words =
      load_pair(block, place.pair) | table.bits[place.word][place.reg][place.half][code];
  std::memcpy(block + place.pair, &words, sizeof(words));
}

uint8_t get_code(const uint8_t* block, int row, int k) {
  const CodePlace place = code_place(row, k);
  const uint64_t words = load_pair(block, place.pair);
  uint32_t code = 0;
  for (int b = 0; b < 4; ++b) {
    const BitPlace at = bit_place(place.word, place.reg, place.half, b);
    code |= static_cast<uint32_t>(words >> (32 * at.word + at.bit) & 1) << b;
  }
  return static_cast<uint8_t>(code);
}

// The scale byte of a row and step, as bits 11..4 (rows below 8) or 27..20 of its widened word.
int scale_word(int row, int step) { return kBlockCodeBytes + row % 8 * 16 + step / 2 * 4; }
int scale_rotation(int row, int step) {
  return (4 + row / 8 * 16 + 32 - step % 2 * kSecondScaleRotation) % 32;
}

void put_scale(uint8_t* block, int row, int step, uint32_t scale) {
  uint32_t word;
  std::memcpy(&word, block + scale_word(row, step), sizeof(word));
  word |= rotate_left(scale, scale_rotation(row, step));
  std::memcpy(block + scale_word(row, step), &word, sizeof(word));
}

uint32_t get_scale(const uint8_t* block, int row, int step) {
  uint32_t word;
  std::memcpy(&word, block + scale_word(row, step), sizeof(word));
  return rotate_left(word, (32 - scale_rotation(row, step)) % 32) & 0xFF;
}

// e4m3 without its sign, not NaN -> scale byte; 0 for 0.
uint32_t encode_e4m3(uint32_t magnitude) {
  if (magnitude == 0) return 0;
  int exponent = static_cast<int>(magnitude >> 3) - 7;
  uint32_t mantissa = magnitude & 7;
  if (magnitude < 8) {  // a subnormal, mantissa * 2^-9, normalised
    exponent = -6;
    while ((mantissa & 8) == 0) {
      mantissa <<= 1;
      --exponent;
    }
    mantissa &= 7;
  }
  return static_cast<uint32_t>(exponent + kScaleBias) << 3 | mantissa;
}

// The largest MXFP4 scale of a row, NaN apart; 0 for a row of NaN.
int row_exponent(const uint8_t* scales, int64_t count) {
  int largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (scales[i] != kUe8m0Nan) largest = std::max<int>(largest, scales[i]);
  }
  return largest;
}

// A scale as the layout holds it. Codes of a block are 0 where `zero`.
struct RowScale {
  uint32_t byte = 0;
  bool zero = false;
  bool negative = false;
  bool nan = false;
};
RowScale row_scale(const WeightTensor& t, uint8_t scale, int largest) {
  if (t.format == WeightFormat::kMxfp4) {
    if (scale == kUe8m0Nan) return {.zero = true, .nan = true};
    return {.byte = static_cast<uint32_t>(scale - largest + kBinades) << 3};
  }
  const uint32_t magnitude = scale & 0x7Fu;
  if (magnitude == kE4m3Nan) return {.zero = true, .nan = true};
  return {.byte = encode_e4m3(magnitude), .zero = magnitude == 0, .negative = (scale & 0x80) != 0};
}

}  // namespace

Support can_pack(const WeightTensor& t) {
  if (!is_fp4(t.format)) {
    return Support::no("holds nvfp4 and mxfp4, found {}", to_string(t.format));
  }
  if (t.format != WeightFormat::kMxfp4 || t.scales == nullptr) return Support::yes();
  const int64_t count = t.k / block_size(t.format);
  for (int64_t i = 0; i < t.n; ++i) {
    const uint8_t* scales = t.scales + i * count;
    const int largest = row_exponent(scales, count);
    const auto* least = std::min_element(scales, scales + count);
    if (count > 0 && *least < largest - kBinades) {
      return Support::no("holds rows of {} binades of scales, found {} in row {}", kBinades + 1,
                         largest - *least + 1, i);
    }
  }
  return Support::yes();
}

void pack_rows(const WeightTensor& t, int64_t row_block, uint8_t* packed, float* row_alpha) {
  const int64_t block = block_size(t.format);
  for (int64_t kb = 0; kb < k_blocks(t.k); ++kb) {
    std::memset(packed + block_offset(row_block, kb, t.n), 0, kBlockBytes);
  }
  for (int row = 0; row < kBlockRows; ++row) {
    const int64_t i = unpacked_row(row_block * kBlockRows + row, t.n, t.gate_up);
    float& factor = row_alpha[row_block * kBlockRows + row];
    if (i >= t.n) {
      factor = 0.0f;
      continue;
    }
    const uint8_t* scales = t.scales + i * (t.k / block);
    const uint8_t* codes = t.codes + i * (t.k / 2);
    const int largest = t.format == WeightFormat::kMxfp4 ? row_exponent(scales, t.k / block) : 0;
    bool nan = false;
    for (int64_t k = 0; k < t.k; k += 16) {
      const RowScale scale = row_scale(t, scales[k / block], largest);
      nan |= scale.nan;
      uint8_t* out = packed + block_offset(row_block, k / kBlockK, t.n);
      const int in_block = static_cast<int>(k % kBlockK);
      put_scale(out, row, in_block / 16, scale.byte);
      if (scale.zero) continue;
      for (int e = 0; e < 16; ++e) {
        const uint32_t code = unpack_e2m1(codes + k / 2, e) ^ (scale.negative ? 8u : 0u);
        put_code(out, row, in_block + e, code);
      }
    }
    float alpha = 1.0f;
    if (t.format == WeightFormat::kMxfp4)
      alpha = std::ldexp(1.0f, largest - 127 - kMaxScaleExponent);
    for (const WeightTensor::Segment& s : t.segments) {
      if (t.format == WeightFormat::kNvfp4 && s.row_begin <= i) alpha = s.global_decode_scale;
    }
    factor = nan ? std::numeric_limits<float>::quiet_NaN() : alpha;
  }
}

void unpack_block_row(const uint8_t* block, int row, float* out) {
  for (int step = 0; step < kSteps; ++step) {
    const uint32_t byte = get_scale(block, row, step);
    const float scale = std::ldexp(static_cast<float>(8 + (byte & 7)),
                                   static_cast<int>(byte >> 3) - kScaleBias - 3);
    for (int e = 0; e < 16; ++e) {
      out[step * 16 + e] = e2m1_to_float(get_code(block, row, step * 16 + e)) * scale;
    }
  }
}

}  // namespace nibble::sm90
