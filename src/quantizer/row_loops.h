// The inner loops over a weight's elements that no op does: its amax, 8-bit rows, and how much was
// lost. One set per instruction set, as in src/kernels/cpu.
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

// Blocks, one behind the other, of kNvfp4 or kMxfp4: what they were and what they became.
struct EncodedBlocks {
  WeightFormat format;
  DType dtype;  // of stored: F32, F16 or BF16
  const void* stored;
  const uint8_t* codes;
  const uint8_t* scales;  // one a block
  float global_decode_scale;
  int64_t blocks;
};

struct RowLoops {
  // Largest magnitude of stored values, at any alignment; Inf or NaN if there is one.
  float (*amax)(DType type, const void* stored, int64_t count);
  SquaredErrors (*errors)(const EncodedBlocks& blocks);
  // codes[i] = float_to_e4m3_satfinite(stored[i] / scale); scale is positive and normal.
  SquaredErrors (*encode_e4m3)(DType type, const void* stored, float scale, int64_t count,
                               uint8_t* codes);
};

extern const RowLoops kPortableRowLoops;
// The fastest ones that run on a CPU with these features. Codes and amax are those of the portable
// ones; errors agree to fp32's precision.
const RowLoops& row_loops(const CpuFeatures& cpu);

}  // namespace nibble
