// NVFP4: blocks of 16 along K, an e4m3 scale per block, one fp32 global scale per tensor.
//   value = e2m1(code) * e4m3(scale) * global_decode_scale
// The arithmetic is fp32, round to nearest even, in the order written here; every backend gives
// these bits. Special values: NaN does not count for the block's amax and becomes code 0x7 (+6);
// Inf makes the scale 448 and becomes +-6; what is too large for the global scale saturates; the
// sign of zero stays in the code.
#pragma once

#include <cstdint>

#include "base/host_device.h"
#include "formats/e2m1.h"
#include "formats/e2m1_block.h"
#include "formats/e4m3.h"

namespace nibble {

inline constexpr int kNvfp4BlockSize = 16;
inline constexpr int kNvfp4BlockBytes = kNvfp4BlockSize / 2;

// Largest global encode scale. Divided by the smallest block scale, 2^-9, it is still finite.
inline constexpr float kNvfp4MaxEncodeScale = 0x1p118f;

// The scale that maps a tensor's largest magnitude to 6 * scale_max (6 * 448 = 2688). 1 for an amax
// of 0, Inf or NaN; at most kNvfp4MaxEncodeScale, reached below amax = 2688 * 2^-118.
NIBBLE_HD constexpr float nvfp4_encode_scale(float amax, float scale_max = kE4m3Max) {
  if (!(amax > 0.0f && amax <= 0x1.fffffep127f)) return 1.0f;
  const float range = kE2m1Max * scale_max;
  return amax > range / kNvfp4MaxEncodeScale ? range / amax : kNvfp4MaxEncodeScale;
}

// amax / (6 * scale_max), rounded on its own: the last bit may differ from 1 / nvfp4_encode_scale.
// 1 for an amax of 0, Inf or NaN; at least 1 / kNvfp4MaxEncodeScale.
NIBBLE_HD constexpr float nvfp4_decode_scale(float amax, float scale_max = kE4m3Max) {
  if (!(amax > 0.0f && amax <= 0x1.fffffep127f)) return 1.0f;
  const float range = kE2m1Max * scale_max;
  return amax > range / kNvfp4MaxEncodeScale ? amax / range : 1.0f / kNvfp4MaxEncodeScale;
}

// The block's amax in units of its scale's grid: what e4m3 rounds to the block scale.
NIBBLE_HD constexpr float nvfp4_ideal_scale(float amax, float global_encode_scale) {
  return global_encode_scale * (amax * (1.0f / kE2m1Max));
}

// What a block's elements are multiplied by before e2m1. 0 for a scale of 0 (a zero block, or one
// below half of 2^-9), so that all its codes are zero; capped at FLT_MAX so that 0 stays 0.
NIBBLE_HD constexpr float nvfp4_factor(uint8_t scale, float global_encode_scale) {
  if (scale == 0) return 0.0f;
  const float factor = global_encode_scale / e4m3_to_float(scale);
  return factor <= 0x1.fffffep127f ? factor : 0x1.fffffep127f;
}

// Quantizes x[0..16) into codes[0..8), even elements in the low halves, and returns the block
// scale. global_encode_scale: positive and finite.
NIBBLE_HD constexpr uint8_t quantize_nvfp4_block(const float* x, float global_encode_scale,
                                                 uint8_t* codes) {
  const uint8_t scale = float_to_e4m3_satfinite(
      nvfp4_ideal_scale(block_amax<kNvfp4BlockSize>(x), global_encode_scale));
  encode_e2m1_block<kNvfp4BlockSize>(x, nvfp4_factor(scale, global_encode_scale), codes);
  return scale;
}

// e2m1 * e4m3 is exact; the global scale rounds once. A NaN scale gives NaN.
NIBBLE_HD constexpr float dequantize_nvfp4(uint8_t code, uint8_t scale, float global_decode_scale) {
  return e2m1_to_float(code) * e4m3_to_float(scale) * global_decode_scale;
}

NIBBLE_HD constexpr void dequantize_nvfp4_block(const uint8_t* codes, uint8_t scale,
                                                float global_decode_scale, float* x) {
  for (int i = 0; i < kNvfp4BlockSize; ++i) {
    x[i] = dequantize_nvfp4(unpack_e2m1(codes, i), scale, global_decode_scale);
  }
}

}  // namespace nibble
