// e4m3fn, the 8-bit float: sign, 4 exponent bits (bias 7), 3 mantissa bits. Largest value 448, no
// Inf, NaN is 0x7F and 0xFF.
#pragma once

#include <cstdint>

#include "base/host_device.h"
#include "formats/bits.h"

namespace nibble {

inline constexpr float kE4m3Max = 448.0f;
inline constexpr uint8_t kE4m3MaxCode = 0x7E;
inline constexpr uint8_t kE4m3Nan = 0x7F;

NIBBLE_HD constexpr float e4m3_to_float(uint8_t code) {
  const uint32_t sign = (code & 0x80u) << 24;
  const uint32_t magnitude = code & 0x7Fu;
  if (magnitude == kE4m3Nan) return float_from_bits(sign | 0x7FC00000u);
  // Below 8 the value is a multiple of the smallest subnormal, 2^-9.
  const uint32_t bits = magnitude < 8 ? float_bits(static_cast<float>(magnitude) * 0x1p-9f)
                                      : (magnitude << 20) + (120u << 23);
  return float_from_bits(sign | bits);
}

// Nearest code, ties to even, saturating: beyond 448 and Inf give 0x7E with the sign, NaN of either
// sign 0x7F, as PTX cvt.rn.satfinite.e4m3x2.f32 does.
NIBBLE_HD constexpr uint8_t float_to_e4m3_satfinite(float value) {
  const float a = float_abs(value);
  if (a != a) return kE4m3Nan;
  const uint32_t sign = (float_bits(value) >> 24) & 0x80u;
  if (a >= kE4m3Max) return static_cast<uint8_t>(sign | kE4m3MaxCode);
  // From 2^-6 on, codes follow the float's own exponent. Below, 2^14 has an ulp of 2^-9, so the
  // addition does the rounding and leaves the code in the low bits.
  const uint32_t magnitude = a >= 0x1p-6f ? shift_right_rne(float_bits(a), 20) - (120u << 3)
                                          : float_bits(a + 0x1p14f) - float_bits(0x1p14f);
  return static_cast<uint8_t>(sign | magnitude);
}

}  // namespace nibble
