// e2m1, the 4-bit float: bit 3 the sign, bits 2..1 the exponent, bit 0 the mantissa.
// Codes 0..7 are 0 0.5 1 1.5 2 3 4 6. No Inf, no NaN.
#pragma once

#include <cstdint>

#include "base/host_device.h"
#include "formats/bits.h"

namespace nibble {

inline constexpr float kE2m1Max = 6.0f;

// Bits above the fourth are ignored.
NIBBLE_HD constexpr float e2m1_to_float(uint8_t code) {
  const uint32_t exponent = (code >> 1) & 3u;
  const uint32_t mantissa = code & 1u;
  const uint32_t sign = (code & 8u) << 28;
  const uint32_t magnitude = exponent != 0   ? ((exponent + 126u) << 23) | (mantissa << 22)
                             : mantissa != 0 ? 0x3F000000u
                                             : 0u;
  return float_from_bits(sign | magnitude);
}

// Nearest code, ties to the even one, saturating; the sign of zero stays (-0.0f and what rounds to
// it give 0x8). NaN of either sign gives 0x7 (+6), as PTX cvt.rn.satfinite.e2m1x2.f32 does.
NIBBLE_HD constexpr uint8_t float_to_e2m1(float value) {
  // Each midpoint passed adds one. Written as negated comparisons so that NaN passes all of them;
  // no branches and no table, so that loops over it become vector code.
  const float a = float_abs(value);
  const int magnitude = !(a <= 0.25f) + !(a < 0.75f) + !(a <= 1.25f) + !(a < 1.75f) + !(a <= 2.5f) +
                        !(a < 3.5f) + !(a <= 5.0f);
  const uint32_t sign = a == a ? (float_bits(value) >> 28) & 8u : 0u;
  return static_cast<uint8_t>(sign | static_cast<uint32_t>(magnitude));
}

// The value of the magnitude code that float_to_e2m1 picks for a >= 0, without going through the
// code: scale searches need the error, not the code. NaN gives 6.
NIBBLE_HD constexpr float round_to_e2m1(float a) {
  // Adding and taking away 1.5 * 2^23 * step rounds to a multiple of step, ties to even.
  const float halves = (a + 0x1.8p22f) - 0x1.8p22f;
  const float ones = (a + 0x1.8p23f) - 0x1.8p23f;
  const float twos = (a + 0x1.8p24f) - 0x1.8p24f;
  const float rounded = a < 2.0f ? halves : a < 4.0f ? ones : twos;
  return rounded < kE2m1Max ? rounded : kE2m1Max;
}

// Two codes share a byte, the element of even index in the low half.
NIBBLE_HD constexpr uint8_t pack_e2m1(uint8_t even, uint8_t odd) {
  return static_cast<uint8_t>(even | (odd << 4));
}
NIBBLE_HD constexpr uint8_t unpack_e2m1(const uint8_t* codes, int index) {
  return (codes[index / 2] >> (index % 2 * 4)) & 0xFu;
}

}  // namespace nibble
