// A float's bit pattern and back. The builtin, because std::bit_cast is not callable from device
// code without a compiler flag.
#pragma once

#include <cstdint>

#include "base/host_device.h"

namespace nibble {

NIBBLE_HD constexpr uint32_t float_bits(float value) { return __builtin_bit_cast(uint32_t, value); }
NIBBLE_HD constexpr float float_from_bits(uint32_t bits) { return __builtin_bit_cast(float, bits); }

NIBBLE_HD constexpr float float_abs(float value) {
  return float_from_bits(float_bits(value) & 0x7FFFFFFFu);
}

// value != value, on the bits: loops over it become vector code.
NIBBLE_HD constexpr bool is_nan(float value) {
  return static_cast<int32_t>(float_bits(value) & 0x7FFFFFFFu) > 0x7F800000;
}

// Shifts the low `shift` bits out of `bits`, rounding to nearest, ties to even.
NIBBLE_HD constexpr uint32_t shift_right_rne(uint32_t bits, int shift) {
  return (bits + ((1u << (shift - 1)) - 1) + ((bits >> shift) & 1u)) >> shift;
}

}  // namespace nibble
