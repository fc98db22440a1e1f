// ActivationMode::kFp4 where there are no FP4 tensor cores: activations become the values that
// quantizing and decoding them gives, code times block scale, exactly in bf16. The one global scale
// stays outside, for the GEMM to multiply its sums by.
#pragma once

#include <cstddef>
#include <cstdint>

#include "nibble/device.h"
#include "nibble/types.h"

namespace nibble::sm90 {

struct Fp4ActivationParams {
  const uint8_t* src;
  int64_t src_row_bytes;
  DType type;           // kF32, kBF16 or kF16
  WeightFormat format;  // of the activations: kNvfp4 or kMxfp4, scales rounded up
  int64_t m, k;
  uint16_t* values;   // [m, k]
  float* scale;       // receives the global decode scale; 1 for MXFP4
  float given_scale;  // 0: nvfp4_decode_scale of the largest magnitude
  uint32_t* scratch;  // kFp4ScratchWords
};
inline constexpr int kFp4ScratchWords = 512;

void launch_fp4_activations(const Fp4ActivationParams& params, Stream stream);

}  // namespace nibble::sm90
