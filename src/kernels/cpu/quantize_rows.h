// What the quantizers of all CPU instruction sets share: rows over threads, chunks of a row through
// a small fp32 buffer, scales to their layout.
#pragma once

#include <cstdint>

#include "ops/quantize.h"

namespace nibble::cpu {

// One instruction set's inner loops.
struct QuantizeLoops {
  // out[0..count) = src[0..count) of 16-bit type `type`, in fp32.
  void (*widen)(DType type, const uint16_t* src, int64_t count, float* out);
  // Quantizes `blocks` adjacent blocks of x as `desc` says.
  void (*quantize)(const QuantizeDesc& desc, float encode_scale, const float* x, int64_t blocks,
                   uint8_t* codes, uint8_t* scales);
};
void quantize_rows(const QuantizeArgs& args, Stream stream, const QuantizeLoops& loops);

struct DequantizeLoops {
  // Decodes `blocks` adjacent blocks into x.
  void (*dequantize)(WeightFormat format, float global_decode_scale, const uint8_t* codes,
                     const uint8_t* scales, int64_t blocks, float* x);
  // out[0..count) of 16-bit type `type` = x[0..count), rounded to nearest even.
  void (*narrow)(DType type, const float* x, int64_t count, uint16_t* out);
};
void dequantize_rows(const DequantizeArgs& args, Stream stream, const DequantizeLoops& loops);

Support can_quantize(const QuantizeDesc& desc, const DeviceInfo& device);
Support can_dequantize(const DequantizeDesc& desc, const DeviceInfo& device);

}  // namespace nibble::cpu
