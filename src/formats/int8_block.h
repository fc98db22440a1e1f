// 8-bit activations: 16 values along K share one fp32 scale. Not a checkpoint format: what
// ActivationMode::kInt8 makes of a GEMM's activations.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace nibble {

inline constexpr int kInt8BlockSize = 16;
inline constexpr float kInt8Max = 127.0f;
// Below this amax 127 / amax would overflow; such a block counts as zero.
inline constexpr float kInt8MinAmax = 0x1p-100f;

// x[16] -> codes in [-127, 127] and the scale that multiplies them: amax / 127; code = x * (127 /
// amax), rounded to nearest even. A NaN or Inf in the block makes the scale NaN (and the codes 0).
inline float quantize_int8_block(const float* x, int8_t* codes) {
  uint32_t amax_bits = 0;
  for (int i = 0; i < kInt8BlockSize; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(x[i]) & 0x7FFFFFFFu;
    amax_bits = bits > amax_bits ? bits : amax_bits;
  }
  const float amax = std::bit_cast<float>(amax_bits);
  const bool usable = amax_bits < 0x7F800000u && amax >= kInt8MinAmax;
  const float inverse = usable ? kInt8Max / amax : 0.0f;
  for (int i = 0; i < kInt8BlockSize; ++i) {
    codes[i] = usable ? static_cast<int8_t>(std::nearbyintf(x[i] * inverse)) : int8_t{0};
  }
  if (amax_bits >= 0x7F800000u) return std::bit_cast<float>(0x7FC00000u);
  return usable ? amax / kInt8Max : 0.0f;
}

}  // namespace nibble
