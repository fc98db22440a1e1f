// 16-bit and 8-bit floats as the GPU's conversions make and read them.
#pragma once

#include <immintrin.h>

#include <bit>
#include <cmath>
#include <cstdint>

namespace nibble::emulator {

// Every NaN that arithmetic makes.
inline constexpr uint32_t kNan = 0x7fffffff;
inline constexpr uint16_t kHalfNan = 0x7fff;

inline float canonical(float x) { return x == x ? x : std::bit_cast<float>(kNan); }
inline float flushed(float x) {
  return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x;
}

inline float from_half(uint16_t h) { return _cvtsh_ss(h); }
inline uint16_t to_half(float x) {
  return x == x ? static_cast<uint16_t>(_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT)) : kHalfNan;
}
inline float from_bf16(uint16_t h) { return std::bit_cast<float>(uint32_t{h} << 16); }
inline uint16_t to_bf16(float x) {
  if (x != x) return kHalfNan;
  const auto bits = std::bit_cast<uint32_t>(x);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float from_e4m3(uint8_t code) {
  const int exponent = code >> 3 & 15, fraction = code & 7;
  float x = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -9)
                          : std::ldexp(static_cast<float>(8 + fraction), exponent - 10);
  if ((code & 0x7f) == 0x7f) x = std::bit_cast<float>(kNan);
  return code & 0x80 ? -x : x;
}
// Of 0 .. most, whose values rise, the nearest to a magnitude; ties to the even one.
template <class F>
uint8_t nearest(float magnitude, uint8_t most, const F& value) {
  uint8_t low = 0;
  while (low < most && value(static_cast<uint8_t>(low + 1)) <= magnitude) ++low;
  if (low == most) return low;
  const double below = double{magnitude} - value(low);
  const double above = value(static_cast<uint8_t>(low + 1)) - double{magnitude};
  return static_cast<uint8_t>(low + (above < below || (above == below && low % 2 == 1)));
}
// 448 for more; the sign is kept.
inline uint8_t to_e4m3_satfinite(float x) {
  if (x != x) return 0x7f;
  return static_cast<uint8_t>((std::signbit(x) ? 0x80 : 0) |
                              nearest(std::fabs(x), 0x7e, from_e4m3));
}

inline float from_e2m1(uint8_t code) {
  constexpr float kValues[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  return code & 8 ? -kValues[code & 7] : kValues[code & 7];
}
// 6 for more and for NaN.
inline uint8_t to_e2m1_satfinite(float x) {
  if (x != x) return 7;
  return static_cast<uint8_t>((std::signbit(x) ? 8 : 0) | nearest(std::fabs(x), 7, from_e2m1));
}

inline float from_e8m0(uint8_t code) {
  return code == 0xff ? std::bit_cast<float>(kNan) : std::ldexp(1.0f, code - 127);
}

}  // namespace nibble::emulator
