// What NVFP4 and MXFP4 share: a block of N elements along K, multiplied by one factor and rounded
// to e2m1.
#pragma once

#include <cstdint>

#include "base/host_device.h"
#include "formats/bits.h"
#include "formats/e2m1.h"

namespace nibble {

// Largest magnitude of x[0..N). NaN elements do not count (0 if all are NaN); Inf does.
template <int N>
NIBBLE_HD constexpr float block_amax(const float* x) {
  float amax = 0.0f;
  for (int i = 0; i < N; ++i) {
    const float a = float_abs(x[i]);
    amax = a > amax ? a : amax;
  }
  return amax;
}

// codes[0..N/2) = e2m1(x[i] * factor), the even element in the low half.
template <int N>
NIBBLE_HD constexpr void encode_e2m1_block(const float* x, float factor, uint8_t* codes) {
  for (int i = 0; i < N / 2; ++i) {
    codes[i] = pack_e2m1(float_to_e2m1(x[2 * i] * factor), float_to_e2m1(x[2 * i + 1] * factor));
  }
}

// Sum over i of (|y| - e2m1(|y|))^2 with y = x[i] * factor. NaN or Inf if the block
// holds one.
// Multiplied by the square of the block scale, this is the squared error of the block.
template <int N>
NIBBLE_HD constexpr float e2m1_block_error(const float* x, float factor) {
  // Four running sums, not one: the order of the additions is part of the result, and this one a
  // compiler may turn into vector code.
  constexpr int kLanes = 4;
  static_assert(N % kLanes == 0);
  float sums[kLanes] = {};
  for (int i = 0; i < N; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float a = float_abs(x[i + lane] * factor);
      const float d = a - round_to_e2m1(a);
      sums[lane] += d * d;
    }
  }
  return (sums[0] + sums[2]) + (sums[1] + sums[3]);
}

}  // namespace nibble
