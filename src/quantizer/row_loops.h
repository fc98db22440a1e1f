// The inner loops over a weight's elements that no op does: errors of what was quantized, and 8-bit
// rows. One set per instruction set, as in src/kernels/cpu.
#pragma once

#include <cstdint>

#include "nibble/device.h"
#include "nibble/types.h"

namespace nibble {

struct SquaredErrors {
  double error = 0.0;  // of sum (w - q)^2; NaN or Inf if a value is
  double norm = 0.0;   // sum w^2

  SquaredErrors& operator+=(const SquaredErrors& other) {
    error += other.error;
    norm += other.norm;
    return *this;
  }
};

struct RowLoops {
  // out[0..count) = src[0..count), which is F32, F16 or BF16, aligned.
  void (*widen)(DType type, const void* src, int64_t count, float* out);
  // Of stored values, aligned, against what became of them. In double: squares of fp32 values
  // overflow or vanish in fp32.
  SquaredErrors (*errors)(DType type, const void* stored, const float* decoded, int64_t count);
  // Largest magnitude; NaN does not count.
  float (*amax)(const float* values, int64_t count);
  // codes[i] = float_to_e4m3_satfinite(values[i] / scale), then values[i] = what the code stands
  // for, times scale. NaN stays NaN.
  void (*encode_e4m3)(float scale, float* values, int64_t count, uint8_t* codes);
};

extern const RowLoops kPortableRowLoops;
// The fastest ones that run on a CPU with these features; bit for bit as the portable ones, save
// for the order of the sums.
const RowLoops& row_loops(const CpuFeatures& cpu);

}  // namespace nibble
