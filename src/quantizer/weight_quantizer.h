// Rows of a weight: their amax, their codes and scales, and how much was lost.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "nibble/device.h"
#include "nibble/quantize.h"
#include "nibble/types.h"
#include "quantizer/row_loops.h"

namespace nibble {

// Stored values [n, k], all rows of a weight or some, of F32, F16 or BF16, at any alignment.
struct SourceWeight {
  std::span<const uint8_t> bytes;
  DType dtype;
  int64_t n;
  int64_t k;
};

class WeightQuantizer {
 public:
  // For as many threads as the device has.
  WeightQuantizer(const QuantizeOptions& options, const Device& device);

  // Largest magnitude. Inf or NaN if there is one among the values.
  float amax(const SourceWeight& rows) const;

  // For weights whose common amax this is: the reciprocal of an encode scale, so that both
  // conventions keep it exactly. 1 where `format` is not NVFP4.
  float global_decode_scale(WeightFormat format, float amax) const;

  // What became of some rows: codes [n, row_bytes(k)]; for 4 bits scales [n, k/block], for kF8
  // row_scales [n].
  struct Rows {
    const uint8_t* codes;
    const uint8_t* scales;
    const float* row_scales;
    SquaredErrors errors;  // NaN or Inf if a value is
  };
  // To be called by thread `worker` of the device's pool alone; valid until its next call.
  Rows quantize(int worker, const SourceWeight& rows, WeightFormat format,
                float global_decode_scale);

 private:
  struct Worker {
    Device device;  // of one thread: workers run ops side by side
    std::vector<uint8_t> aligned, codes, scales;
    std::vector<float> row_scales;
  };
  struct Batch {
    const uint8_t* values;  // aligned
    DType dtype;
    int64_t count;
  };
  SquaredErrors quantize_fp4(Worker& worker, const Batch& batch, WeightFormat format,
                             float global_decode_scale, uint8_t* codes, uint8_t* scales) const;

  QuantizeOptions options_;
  const RowLoops& loops_;
  std::vector<Worker> workers_;
};

}  // namespace nibble
