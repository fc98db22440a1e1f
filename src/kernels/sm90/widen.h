// Two words of 4-bit codes -> 8 bf16 pairs, exactly, in 16 integer instructions; scales in 3. For
// fp16 twice as many.
//
// A code's bits s ee m, put at bits 15 and 8..6 of a bf16, are its value times 2^-126 (subnormal
// where e2m1 is), so unpacking is masks and rotations; one bf16 multiplication by the block scale
// times 2^119 then gives the exact product times 2^-7 as a normal number. kSumScale undoes the
// 2^-7 in the fp32 sum. (2^126 in the scale would overflow from scale 4 on.)
//
// Each of a word's halves holds four codes; three come out by rotating left. The
// fourth code's bits are what the three leave over, at 10, 9, 1 and 0: a merge with the pair's
// other word (shifted by two) lines up both words' rests for two rotations more.
#pragma once

#include <cstdint>

#include "base/host_device.h"

namespace nibble::sm90 {

inline constexpr uint32_t kCodeMask = 0x81C081C0u;
inline constexpr int kRotation1 = 4;  // of the second code; the first lies in place
inline constexpr int kRotation2 = 10;
inline constexpr uint32_t kRestOfFirst = 0x06030603u;  // of the merged word, the first word's bits
inline constexpr int kRestShift = 2;
inline constexpr int kRestRotation0 = 6;  // of the merged word, for the first word's fourth code
inline constexpr int kRestRotation1 = 12;

// A scale byte is 8 * (exponent + kScaleBias) + mantissa; its bf16 is 2^119 times the scale.
inline constexpr int kScaleBias = 22;
inline constexpr int kMaxScaleExponent = 8;  // of e4m3; one more would be Inf in bf16
inline constexpr uint32_t kScaleMask = 0x0FF00FF0u;
inline constexpr uint32_t kScaleExponent = 0x70007000u;
inline constexpr int kSecondScaleRotation = 24;
inline constexpr float kSumScale = 128.0f;

NIBBLE_HD constexpr uint32_t rotate_left(uint32_t x, int by) {
#ifdef __CUDA_ARCH__
  return __funnelshift_l(x, x, by);
#else
  return by == 0 ? x : x << by | x >> (32 - by);
#endif
}

// The two 16-bit types of activations; weights are widened to the same. fp16 has the code's bits
// three places higher (times 2^-14) and the scale's byte at its exponent and mantissa (times 2^7),
// so their product is times 2^-7 as well, and exact down to an e4m3 scale of 2^-9.
enum class Wide { kBF16, kF16 };
inline constexpr uint32_t kSignMask = 0x80008000u;
inline constexpr int kF16Shift = 3;
inline constexpr uint32_t kF16ScaleMask = 0x7F807F80u;

template <Wide kWide>
NIBBLE_HD constexpr uint32_t take_code(uint32_t word) {
  if constexpr (kWide == Wide::kBF16) return word & kCodeMask;
  return (word << kF16Shift & (kCodeMask & ~kSignMask) << kF16Shift) | (word & kSignMask);
}

// out[0..4): the first word's A registers (row g, row g + 8, row g at k + 8, row g + 8 at k + 8);
// out[4..8): the second word's.
template <Wide kWide>
NIBBLE_HD inline void widen_codes(uint32_t first, uint32_t second, uint32_t* out) {
  const auto three = [](uint32_t word, uint32_t* to) {
    to[0] = take_code<kWide>(word);
    to[1] = take_code<kWide>(word << kRotation1);
    to[2] = take_code<kWide>(rotate_left(word, kRotation2));
  };
  three(first, out);
  three(second, out + 4);
  uint32_t rest;
#ifdef __CUDA_ARCH__
  // The compiler would make two instructions of a merge by a constant mask. 0xE4: c ? a : b.
  asm("lop3.b32 %0, %1, %2, %3, 0xE4;"
      : "=r"(rest)
      : "r"(first), "r"(second << kRestShift), "n"(kRestOfFirst));
#else
  rest = (first & kRestOfFirst) | (second << kRestShift & ~kRestOfFirst);
#endif
  out[3] = take_code<kWide>(rest << kRestRotation0);
  out[7] = take_code<kWide>(rotate_left(rest, kRestRotation1));
}

// The scales of rows g (low half) and g + 8 (high half) in step 2i or 2i + 1.
template <Wide kWide>
NIBBLE_HD inline uint32_t widen_scales(uint32_t word, int step) {
  if constexpr (kWide == Wide::kF16) {
    return rotate_left(word, (step == 0 ? 0 : kSecondScaleRotation) + kF16Shift) & kF16ScaleMask;
  }
  const uint32_t w = step == 0 ? word : rotate_left(word, kSecondScaleRotation);
#ifdef __CUDA_ARCH__
  uint32_t scales;
  asm("lop3.b32 %0, %1, %2, %3, 0xEA;"  // (a & b) | c
      : "=r"(scales)
      : "r"(w), "r"(kScaleMask), "n"(kScaleExponent));
  return scales;
#else
  return (w & kScaleMask) | kScaleExponent;
#endif
}

}  // namespace nibble::sm90
