// bfloat16 and IEEE half as bit patterns, to float and back. To float is exact; from float rounds
// to nearest, ties to even, overflow to Inf. NaN stays NaN with its sign and the payload's upper
// bits, made quiet, as the processors' own conversions do.
#pragma once

#include <cstdint>

#include "base/host_device.h"
#include "formats/bits.h"

namespace nibble {

// A plain shift: the one conversion that leaves a signalling NaN as it is.
NIBBLE_HD constexpr float bf16_to_float(uint16_t bits) {
  return float_from_bits(static_cast<uint32_t>(bits) << 16);
}

NIBBLE_HD constexpr uint16_t float_to_bf16(float value) {
  const uint32_t bits = float_bits(value);
  if (value != value) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>(shift_right_rne(bits, 16));
}

NIBBLE_HD constexpr float fp16_to_float(uint16_t bits) {
  const uint32_t sign = (bits & 0x8000u) << 16;
  const uint32_t magnitude = bits & 0x7FFFu;
  if (magnitude > 0x7C00u) return float_from_bits(sign | 0x7FC00000u | (magnitude << 13));
  if (magnitude == 0x7C00u) return float_from_bits(sign | 0x7F800000u);
  // Below 2^-14 the value is a multiple of the smallest subnormal, 2^-24.
  const uint32_t out = magnitude < 0x400u ? float_bits(static_cast<float>(magnitude) * 0x1p-24f)
                                          : (magnitude << 13) + (112u << 23);
  return float_from_bits(sign | out);
}

NIBBLE_HD constexpr uint16_t float_to_fp16(float value) {
  const float a = float_abs(value);
  const uint32_t bits = float_bits(a);
  const uint32_t sign = (float_bits(value) >> 16) & 0x8000u;
  if (a != a) return static_cast<uint16_t>(sign | 0x7E00u | ((bits >> 13) & 0x3FFu));
  // 65520 is halfway between the largest half, 65504, and 2^16.
  if (a >= 65520.0f) return static_cast<uint16_t>(sign | 0x7C00u);
  // Below 2^-14: 0.5 has an ulp of 2^-24, so the addition does the rounding.
  const uint32_t magnitude = a >= 0x1p-14f ? shift_right_rne(bits, 13) - (112u << 10)
                                           : float_bits(a + 0.5f) - float_bits(0.5f);
  return static_cast<uint16_t>(sign | magnitude);
}

}  // namespace nibble
