#include "kernels/cuda/fp4_operand.h"

#include <algorithm>

#include "kernels/cuda/fp4_rows.h"
#include "kernels/cuda/pointer.h"
#include "kernels/cuda/quantize.h"

namespace nibble::cuda {
namespace {

QuantizeDesc quantize_desc(const GemmDesc& d, ScaleLayout layout, GlobalScale global) {
  return {.format = d.weight,
          .src_type = d.a_type,
          .layout = layout,
          .m = d.m,
          .k = d.k,
          .global = global};
}

size_t aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }

}  // namespace

Fp4Workspace::Fp4Workspace(const GemmDesc& d, ScaleLayout layout, size_t begin)
    : codes(begin), scales(begin), scale(begin), quantize(begin), end(begin) {
  if (d.a_type == DType::kU8) return;
  const bool global = d.weight == WeightFormat::kNvfp4;
  const QuantizeDesc q =
      quantize_desc(d, layout, global ? GlobalScale::kComputed : GlobalScale::kValue);
  scales = codes + aligned(static_cast<size_t>(d.m * d.k / 2));
  scale = scales + aligned(static_cast<size_t>(quantize_scale_bytes(q)));
  quantize = scale + aligned(sizeof(float));
  end = quantize + aligned(kQuantize.workspace_bytes(q, {}, DeviceInfo{}));
}

Support takes_fp4_activations(const GemmDesc& d, ScaleLayout layout) {
  if (d.activation != ActivationMode::kFp4) {
    return Support::no("multiplies 4-bit activations, found mode {}", to_string(d.activation));
  }
  if (d.a_type == DType::kU8) {
    if (d.a_layout != layout) {
      return Support::no("scales of a must be {}, found {}", to_string(layout),
                         to_string(d.a_layout));
    }
    const int64_t tile = 4 * block_size(d.weight);
    if (layout != ScaleLayout::kLinear && d.k % tile != 0) {
      return Support::no(
          "reads the padding of given scales along k: k must be a multiple of {} for "
          "a in U8, found {}",
          tile, d.k);
    }
    return Support::yes();
  }
  if (d.a_type == DType::kF32 || d.a_type == DType::kF16 || d.a_type == DType::kBF16) {
    return Support::yes();
  }
  return Support::no("a must be F32, F16, BF16 or U8, found {}", to_string(d.a_type));
}

void check_fp4_activations(const GemmArgs& args, size_t scales_alignment, int device) {
  const GemmDesc& d = args.desc;
  const bool given = d.a_type == DType::kU8;
  check_device_pointer("gemm", "a", args.a.data, given ? 16 : size_of(d.a_type), device);
  if (!given) return;
  NIBBLE_CHECK(args.a.stride % 16 == 0 || d.m == 1, ErrorCode::kInvalidArgument,
               "gemm: a's rows of codes must be a multiple of 16 bytes apart, found {}",
               args.a.stride);
  check_device_pointer("gemm", "a_scales", args.a_scales, scales_alignment, device);
  if (d.weight == WeightFormat::kNvfp4) {
    check_device_pointer("gemm", "a_decode_scale", args.a_decode_scale, sizeof(float), device);
  }
}

float static_activation_scale(const GemmArgs& args) {
  if (args.desc.weight != WeightFormat::kNvfp4) return 1.0f;
  return std::max(0.0f, args.b->input_decode_scale);
}

Fp4Operand given_activations(const GemmArgs& args) {
  const bool nvfp4 = args.desc.weight == WeightFormat::kNvfp4;
  return {.codes = args.a.row<const uint8_t>(0),
          .stride = args.a.stride,
          .scales = args.a_scales,
          .layout = args.desc.a_layout,
          .scale_memory = nvfp4 ? args.a_decode_scale : nullptr};
}

Fp4Operand quantize_activations(const GemmArgs& args, ScaleLayout layout, const Fp4Workspace& at,
                                Stream stream) {
  const GemmDesc& d = args.desc;
  auto* const memory = static_cast<uint8_t*>(args.workspace);
  const float static_scale = static_activation_scale(args);
  const bool computed = static_scale == 0.0f;
  QuantizeArgs q;
  q.desc = quantize_desc(d, layout, computed ? GlobalScale::kComputed : GlobalScale::kValue);
  q.src = args.a;
  q.global_decode_scale = computed ? 1.0f : static_scale;
  q.scale_memory = computed ? reinterpret_cast<float*>(memory + at.scale) : nullptr;
  q.codes = memory + at.codes;
  q.scales = memory + at.scales;
  q.workspace = memory + at.quantize;
  kQuantize.launch(q, kQuantize.candidates(q.desc, DeviceInfo{}).front(), stream);
  return {.codes = q.codes,
          .stride = d.k / 2,
          .scales = q.scales,
          .layout = layout,
          .scale_memory = q.scale_memory,
          .scale = q.global_decode_scale};
}

size_t fp4_alpha_bytes(const GemmDesc& d) {
  return d.weight == WeightFormat::kNvfp4
             ? aligned(static_cast<size_t>(d.num_segments) * sizeof(float))
             : 0;
}

const float* fp4_alphas(const GemmArgs& args, const Fp4Operand& a, float* memory, Stream stream) {
  const auto count = static_cast<int>(num_fp4_segments(*args.b));
  NIBBLE_CHECK(count == args.desc.num_segments, ErrorCode::kInvalidArgument,
               "gemm: b ({}) must have {} segments, found {}", args.b->name, args.desc.num_segments,
               count);
  const float* const scales = fp4_segment_scales(*args.b);
  if (args.desc.weight != WeightFormat::kNvfp4) return scales;
  const DeviceScope scope(stream.index);
  launch_multiply_scales(a.scale_memory, a.scale, scales, count, memory, stream);
  return memory;
}

}  // namespace nibble::cuda
