// What quantize.cc hands to the kernels. No fmt here: .cu files include it.
#pragma once

#include <cstdint>

#include "nibble/device.h"
#include "nibble/types.h"

namespace nibble::cuda {

// Everything is in device memory and aligned as quantize.cc checks.
struct QuantizeParams {
  const uint8_t* src = nullptr;
  int64_t src_row_bytes = 0;
  uint8_t* codes = nullptr;
  uint8_t* scales = nullptr;
  const float* decode_scale = nullptr;  // null: encode_scale counts
  float encode_scale = 1.0f;
  int64_t m = 0;
  int64_t k = 0;
  WeightFormat format = WeightFormat::kNvfp4;
  DType type = DType::kBF16;
  ScaleLayout layout = ScaleLayout::kLinear;
  Mxfp4ScaleRule rule = Mxfp4ScaleRule::kCeil;
  QuantizeMethod method = QuantizeMethod::kRtn;
};

// kRtn, src rows aligned to 16 bytes. rows_per_thread: 1, 2 or 4; staged: swizzled scales pass
// through shared memory.
void launch_quantize(const QuantizeParams& params, int rows_per_thread, bool staged,
                     nibble::Stream stream);

// Everything else, a thread a block.
void launch_quantize_any(const QuantizeParams& params, nibble::Stream stream);

// *decode_scale = nvfp4_decode_scale(largest magnitude of src). `scratch`: 8 bytes.
void launch_decode_scale(const QuantizeParams& params, float* decode_scale, void* scratch,
                         nibble::Stream stream);

struct DequantizeParams {
  const uint8_t* codes = nullptr;
  const uint8_t* scales = nullptr;
  uint8_t* dst = nullptr;
  int64_t dst_row_bytes = 0;
  float decode_scale = 1.0f;
  int64_t m = 0;
  int64_t k = 0;
  WeightFormat format = WeightFormat::kNvfp4;
  DType type = DType::kF32;
  ScaleLayout layout = ScaleLayout::kLinear;
};
void launch_dequantize(const DequantizeParams& params, nibble::Stream stream);

}  // namespace nibble::cuda
