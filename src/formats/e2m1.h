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

// The rounding below adds and takes away 2^22 times the binade of its argument: the sum's ulp is
// then e2m1's step there, so the addition rounds, ties to even. Minima and maxima are taken of the
// bit patterns, which order as the values do and put NaN on top. No branch and no table: loops over
// it become vector code.

// min(a, 6) for a >= 0, 6 for NaN.
NIBBLE_HD constexpr float e2m1_saturate(float a) {
  const auto bits = static_cast<int32_t>(float_bits(a));
  constexpr int32_t kMaxBits = 0x40C00000;  // 6.0f
  return float_from_bits(static_cast<uint32_t>(bits < kMaxBits ? bits : kMaxBits));
}

// Largest power of two not above a >= 0, at least 1: below 1, e2m1 keeps its step of [1, 2).
NIBBLE_HD constexpr float e2m1_binade(float a) {
  const auto bits = static_cast<int32_t>(float_bits(a));
  constexpr int32_t kOneBits = 0x3F800000;  // 1.0f
  return float_from_bits(static_cast<uint32_t>(bits > kOneBits ? bits : kOneBits) & 0x7F800000u);
}

// The e2m1 value nearest to a >= 0, ties to the even code, saturating. NaN gives 6.
NIBBLE_HD constexpr float round_to_e2m1(float a) {
  const float saturated = e2m1_saturate(a);
  const float magic = e2m1_binade(saturated) * 0x1p22f;
  return (saturated + magic) - magic;
}

// Code of the value that round_to_e2m1 picks for |value|; the sign of zero stays (-0.0f and what
// rounds to it give 0x8). NaN of either sign gives 0x7 (+6), as PTX cvt.rn.satfinite.e2m1x2.f32
// does.
NIBBLE_HD constexpr uint8_t float_to_e2m1(float value) {
  const float saturated = e2m1_saturate(float_abs(value));
  const float binade = e2m1_binade(saturated);
  const float magic = binade * 0x1p22f;
  // The sum's low bits count steps; each binade above the first starts two codes higher.
  const uint32_t steps = float_bits(saturated + magic) - float_bits(magic);
  const uint32_t first = (float_bits(binade) >> 22) - (127u << 1);
  const uint32_t sign = is_nan(value) ? 0u : (float_bits(value) >> 28) & 8u;
  return static_cast<uint8_t>(sign | (steps + first));
}

// Two codes share a byte, the element of even index in the low half.
NIBBLE_HD constexpr uint8_t pack_e2m1(uint8_t even, uint8_t odd) {
  return static_cast<uint8_t>(even | (odd << 4));
}
NIBBLE_HD constexpr uint8_t unpack_e2m1(const uint8_t* codes, int index) {
  return (codes[index / 2] >> (index % 2 * 4)) & 0xFu;
}

}  // namespace nibble
