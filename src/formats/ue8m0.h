// ue8m0, the scale of MX formats: a power of two 2^(b - 127), b = 255 is NaN. There is no zero.
#pragma once

#include <cstdint>

#include "base/host_device.h"
#include "formats/bits.h"
#include "nibble/types.h"

namespace nibble {

inline constexpr uint8_t kUe8m0Nan = 0xFF;
inline constexpr uint8_t kUe8m0Max = 0xFE;

// b = 0 is 2^-127, a subnormal float: hardware that flushes subnormals reads 0.
NIBBLE_HD constexpr float ue8m0_to_float(uint8_t b) {
  if (b == kUe8m0Nan) return float_from_bits(0x7FC00000u);
  return float_from_bits(b == 0 ? 0x00400000u : static_cast<uint32_t>(b) << 23);
}

// 1 / ue8m0_to_float(b), exactly: 2^(127 - b), subnormal for b = 254. NaN for 255.
NIBBLE_HD constexpr float ue8m0_reciprocal(uint8_t b) {
  return ue8m0_to_float(b == kUe8m0Nan ? kUe8m0Nan : static_cast<uint8_t>(254 - b));
}

// amax >= 0. 0 and anything whose scale would be below 2^-127 give 0, Inf 0xFE, NaN 0xFF.
NIBBLE_HD constexpr uint8_t ue8m0_from_amax(float amax, Mxfp4ScaleRule rule) {
  const uint32_t bits = float_bits(amax);
  if (bits > 0x7F800000u) return kUe8m0Nan;
  if (bits == 0x7F800000u) return kUe8m0Max;
  // The rules differ in what carries into the exponent: a mantissa above 1.5 (6 = 1.5 * 2^2),
  // none, one of 1.75 or more. Exact, where a logarithm or a division by 6 would round.
  const uint32_t carry = rule == Mxfp4ScaleRule::kCeil   ? 0x003FFFFFu
                         : rule == Mxfp4ScaleRule::kEven ? 0x00200000u
                                                         : 0u;
  const uint32_t exponent = (bits + carry) >> 23;
  return static_cast<uint8_t>(exponent > 2 ? exponent - 2 : 0);
}

}  // namespace nibble
