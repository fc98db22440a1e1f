// MXFP4: blocks of 32 along K, a ue8m0 scale per block, no global scale.
//   value = e2m1(code) * 2^(scale - 127)
// Every step is exact but the rounding to e2m1. NaN does not count for the block's amax and becomes
// code 0x7 (+6); Inf makes the scale 0xFE and becomes +-6; the sign of zero stays in the code. A
// zero block has scale 0.
#pragma once

#include <cstdint>

#include "base/host_device.h"
#include "formats/e2m1.h"
#include "formats/e2m1_block.h"
#include "formats/ue8m0.h"

namespace nibble {

inline constexpr int kMxfp4BlockSize = 32;
inline constexpr int kMxfp4BlockBytes = kMxfp4BlockSize / 2;

// Quantizes x[0..32) into codes[0..16), even elements in the low halves, and returns the scale.
NIBBLE_HD constexpr uint8_t quantize_mxfp4_block(const float* x, Mxfp4ScaleRule rule,
                                                 uint8_t* codes) {
  const uint8_t scale = ue8m0_from_amax(block_amax<kMxfp4BlockSize>(x), rule);
  encode_e2m1_block<kMxfp4BlockSize>(x, ue8m0_reciprocal(scale), codes);
  return scale;
}

// Exact, but for scale > 252 where 6 * 2^(scale - 127) may overflow to Inf. A NaN scale gives NaN.
NIBBLE_HD constexpr float dequantize_mxfp4(uint8_t code, uint8_t scale) {
  return e2m1_to_float(code) * ue8m0_to_float(scale);
}

NIBBLE_HD constexpr void dequantize_mxfp4_block(const uint8_t* codes, uint8_t scale, float* x) {
  for (int i = 0; i < kMxfp4BlockSize; ++i) {
    x[i] = dequantize_mxfp4(unpack_e2m1(codes, i), scale);
  }
}

}  // namespace nibble
