// What NVFP4 and MXFP4 share: a block of N elements along K, multiplied by one factor and rounded
// to e2m1.
#pragma once

#include <cstdint>

#include "base/host_device.h"
#include "formats/bits.h"
#include "formats/e2m1.h"

// GCC unrolls loops of 16 before its vectorizer sees them, and then leaves them scalar: 4 to 8
// times slower. Other compilers vectorize first.
#if defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
#define NIBBLE_VECTORIZE _Pragma("GCC unroll 1")
#else
#define NIBBLE_VECTORIZE
#endif

namespace nibble {

// Largest magnitude of x[0..N). NaN elements do not count (0 if all are NaN); Inf does.
template <int N>
NIBBLE_HD constexpr float block_amax(const float* x) {
  // The bit patterns of magnitudes order as the values do, NaN above Inf.
  int32_t amax = 0;
  NIBBLE_VECTORIZE
  for (int i = 0; i < N; ++i) {
    const auto bits = static_cast<int32_t>(float_bits(x[i]) & 0x7FFFFFFFu);
    const int32_t counted = bits > 0x7F800000 ? 0 : bits;
    amax = counted > amax ? counted : amax;
  }
  return float_from_bits(static_cast<uint32_t>(amax));
}

// codes[0..N/2) = e2m1(x[i] * factor), the even element in the low half.
template <int N>
NIBBLE_HD constexpr void encode_e2m1_block(const float* x, float factor, uint8_t* codes) {
  uint8_t unpacked[N] = {};
  NIBBLE_VECTORIZE
  for (int i = 0; i < N; ++i) unpacked[i] = float_to_e2m1(x[i] * factor);
  for (int i = 0; i < N / 2; ++i) codes[i] = pack_e2m1(unpacked[2 * i], unpacked[2 * i + 1]);
}

// Sum over i of (|y| - e2m1(|y|))^2 with y = x[i] * factor. NaN or Inf if the block
// holds one. Times the square of the block scale, this is the squared error of the block.
template <int N>
NIBBLE_HD constexpr float e2m1_block_error(const float* x, float factor) {
  float squares[N] = {};
  NIBBLE_VECTORIZE
  for (int i = 0; i < N; ++i) {
    const float a = float_abs(x[i] * factor);
    const float d = a - round_to_e2m1(a);
    squares[i] = d * d;
  }
  // Pairwise, not left to right: the order is part of the result, and this one is vector code.
  for (int half = N / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) squares[i] += squares[i + half];
  }
  return squares[0];
}

}  // namespace nibble

#undef NIBBLE_VECTORIZE
