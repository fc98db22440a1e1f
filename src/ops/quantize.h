// fp16, bf16, fp32, e4m3 -> e2m1 codes and block scales, and back.
#pragma once

#include <vector>

#include "ops/impl.h"

namespace nibble {

// Where NVFP4's global scale comes from.
enum class GlobalScale : uint8_t {
  kValue,     // args.global_decode_scale
  kMemory,    // read from args.scale_memory, on the device, when the op runs
  kComputed,  // nvfp4_decode_scale(amax of src), and written to args.scale_memory
};

// What of src is quantized. The fused ones give what the op of that name (ops/model_ops.h) and then
// this one would: their result is rounded to src_type first.
enum class QuantizeInput : uint8_t {
  kPlain,    // src
  kSiluMul,  // silu(gate) * up; src is [m, 2k], gate in the first half of each row
  kRmsNorm,  // src / sqrt(mean(src^2) + norm_eps) * norm_weight
};

struct QuantizeDesc {
  WeightFormat format = WeightFormat::kNvfp4;  // kNvfp4 or kMxfp4
  QuantizeMethod method = QuantizeMethod::kRtn;
  Mxfp4ScaleRule scale_rule = Mxfp4ScaleRule::kCeil;  // kMxfp4 with kRtn
  DType src_type = DType::kBF16;
  ScaleLayout layout = ScaleLayout::kLinear;
  int64_t m = 0;
  int64_t k = 0;                             // a multiple of the block size
  GlobalScale global = GlobalScale::kValue;  // kMxfp4: kValue; fused inputs: not kComputed
  QuantizeInput input = QuantizeInput::kPlain;
  bool has_residual = false;  // kRmsNorm: of src + residual, rounded to src_type
  // Matrices stacked along m, each with a global scale of its own; 0: one matrix. Each is of
  // m / experts rows, or, where `ragged`, of those that args.expert_offsets tells.
  int64_t experts = 0;
  bool ragged = false;
};
std::string to_string(const QuantizeDesc& desc);

// The scales of expert e follow those of e - 1, each padded to whole tiles by itself: what grouped
// GEMMs (CUTLASS, vLLM's blockscale_offsets) read.
int64_t quantize_scale_rows(const QuantizeDesc& desc);  // at most, where `ragged`
int64_t quantize_scale_bytes(const QuantizeDesc& desc);

// NVFP4 arithmetic is formats/nvfp4.h with the encode scale 1.0f / global_decode_scale.
struct QuantizeArgs {
  QuantizeDesc desc;
  MatrixView src;                    // [m, k]; kSiluMul: [m, 2k]
  float src_scale = 1.0f;            // kF8E4M3: multiplies every element, in fp32
  float global_decode_scale = 1.0f;  // kNvfp4 with kValue
  float* scale_memory = nullptr;     // with kMemory and kComputed: one positive finite float, or
                                     // one for each expert
  uint8_t* codes = nullptr;          // [m, k/2]
  uint8_t* scales = nullptr;         // quantize_scale_bytes(desc); padding is written as zero
  // ragged: [experts + 1], in the device's memory: expert e has rows [offsets[e], offsets[e + 1]).
  // Not decreasing, in [0, m]; rows of no expert are left alone, as are scales behind the last one.
  const int32_t* expert_offsets = nullptr;
  MatrixView residual = {};            // has_residual: [m, k]; the sum is written back
  const float* norm_weight = nullptr;  // kRmsNorm: [k]
  float norm_eps = 0.0f;
  void* workspace = nullptr;  // needs no clearing
};
using QuantizeImpl = OpImpl<QuantizeDesc, QuantizeArgs>;
void validate(const QuantizeArgs& args);

// The rows that share a global scale. For implementations on the host: throws kInvalidArgument for
// expert_offsets that are not as said above.
struct RowGroup {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t scale_row = 0;  // of its first row; a whole number of tiles
};
std::vector<RowGroup> row_groups(const QuantizeArgs& args);

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
