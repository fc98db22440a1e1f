// One weight at a time: its amax, its codes and scales, and how much was lost.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "nibble/device.h"
#include "nibble/quantize.h"
#include "nibble/types.h"
#include "quantizer/row_loops.h"

namespace nibble {

// Stored values [n, k] of F32, F16 or BF16, at any alignment.
struct SourceWeight {
  std::span<const uint8_t> bytes;
  DType dtype;
  int64_t n;
  int64_t k;
};

class WeightQuantizer {
 public:
  WeightQuantizer(const QuantizeOptions& options, const Device& device);

  // Largest magnitude. Inf or NaN if there is one among the values.
  float amax(const SourceWeight& weight) const;

  // For weights whose common amax this is: the reciprocal of an encode scale, so that both
  // conventions keep it exactly. 1 where `format` is not NVFP4.
  float global_decode_scale(WeightFormat format, float amax) const;

  // Where the results of one weight go. codes: [n, row_bytes(k)]; for 4 bits scales: [n, k/block],
  // for kF8 row_scales: [n].
  struct Target {
    WeightFormat format;
    float global_decode_scale;
    uint8_t* codes;
    uint8_t* scales;
    float* row_scales;
  };
  SquaredErrors quantize(const SourceWeight& weight, const Target& target);

 private:
  struct Worker {
    Device device;  // of one thread: workers run ops side by side
    std::vector<uint8_t> aligned;
    std::vector<float> decoded;
  };
  SquaredErrors quantize_rows(Worker& worker, const SourceWeight& rows, const Target& target) const;

  QuantizeOptions options_;
  Device device_;
  const RowLoops& loops_;
  std::vector<Worker> workers_;
};

}  // namespace nibble
