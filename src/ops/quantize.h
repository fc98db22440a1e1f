// fp16, bf16, fp32 -> e2m1 codes and block scales, and back.
#pragma once

#include "ops/impl.h"

namespace nibble {

// Where NVFP4's global scale comes from.
enum class GlobalScale : uint8_t {
  kValue,     // args.global_decode_scale
  kMemory,    // read from args.scale_memory, on the device, when the op runs
  kComputed,  // nvfp4_decode_scale(amax of src), and written to args.scale_memory
};

struct QuantizeDesc {
  WeightFormat format = WeightFormat::kNvfp4;  // kNvfp4 or kMxfp4
  QuantizeMethod method = QuantizeMethod::kRtn;
  Mxfp4ScaleRule scale_rule = Mxfp4ScaleRule::kCeil;  // kMxfp4 with kRtn
  DType src_type = DType::kBF16;
  ScaleLayout layout = ScaleLayout::kLinear;
  int64_t m = 0;
  int64_t k = 0;                             // a multiple of the block size
  GlobalScale global = GlobalScale::kValue;  // kMxfp4: kValue
};
std::string to_string(const QuantizeDesc& desc);

// NVFP4 arithmetic is formats/nvfp4.h with the encode scale 1.0f / global_decode_scale.
struct QuantizeArgs {
  QuantizeDesc desc;
  MatrixView src;                    // [m, k]
  float global_decode_scale = 1.0f;  // kNvfp4 with kValue
  float* scale_memory = nullptr;     // one float, with kMemory and kComputed; positive and finite
  uint8_t* codes = nullptr;          // [m, k/2]
  uint8_t* scales = nullptr;         // scale_bytes(layout, m, k/block); padding is written as zero
  void* workspace = nullptr;
};
using QuantizeImpl = OpImpl<QuantizeDesc, QuantizeArgs>;
void validate(const QuantizeArgs& args);

struct DequantizeDesc {
  WeightFormat format = WeightFormat::kNvfp4;
  DType dst_type = DType::kF32;
  ScaleLayout layout = ScaleLayout::kLinear;
  int64_t m = 0;
  int64_t k = 0;
};
std::string to_string(const DequantizeDesc& desc);

struct DequantizeArgs {
  DequantizeDesc desc;
  const uint8_t* codes = nullptr;
  const uint8_t* scales = nullptr;
  float global_decode_scale = 1.0f;
  MatrixView dst;  // [m, k]
};
using DequantizeImpl = OpImpl<DequantizeDesc, DequantizeArgs>;
void validate(const DequantizeArgs& args);

}  // namespace nibble
