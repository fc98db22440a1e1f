// A matrix of weights as every checkpoint convention is turned into: the one canonical form.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "nibble/types.h"

namespace nibble {

// B[n, k], K-major, as `checkpoint/` yields it. Views into memory that `owner` keeps alive.
//
// kNvfp4: value(i, j) = e2m1(codes[i, j]) * e4m3(scales[i, j/16]) * global_decode_scale(segment of
// i) kMxfp4: value(i, j) = e2m1(codes[i, j]) * 2^(scales[i, j/32] - 127) kF8:    value(i, j) =
// e4m3(codes[i, j]) * row_scales[i] Two codes a byte: even k in the low nibble. Scales are kLinear:
// [n, k/block], row-major.
struct WeightTensor {
  // Rows [row_begin, next segment's row_begin) share one global scale. Projections that were fused
  // (q|k|v, gate|up) keep their own scales this way, exactly.
  struct Segment {
    int64_t row_begin = 0;
    float global_decode_scale = 1.0f;  // multiplies
  };

  std::string name;  // as in the checkpoint, for messages
  WeightFormat format = WeightFormat::kF32;
  int64_t n = 0;
  int64_t k = 0;
  const uint8_t* codes = nullptr;     // n * row_bytes(format, k); any alignment
  const uint8_t* scales = nullptr;    // n * (k / block_size); null without block scales
  const float* row_scales = nullptr;  // kF8 only: [n]
  std::vector<Segment> segments;      // kNvfp4: at least one, ascending, first at row 0
  // Rows [0, n/2) are an MLP's gate and [n/2, n) its up projection, for GEMMs that end in
  // silu(gate) * up, and for these only: a layout may keep the two together.
  bool gate_up = false;
  float input_decode_scale = 0.0f;    // static activation scale for ActivationMode::kFp4; 0: none
  std::shared_ptr<const void> owner;  // keeps codes and scales alive
};

}  // namespace nibble
