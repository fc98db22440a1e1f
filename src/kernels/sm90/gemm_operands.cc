#include "kernels/sm90/gemm_operands.h"

#include <algorithm>
#include <limits>

#include "base/check.h"
#include "kernels/cuda/pointer.h"
#include "kernels/sm90/fp4_activations.h"

namespace nibble::sm90 {
namespace {

constexpr size_t kCopyBytes = 16;  // activations are copied in pieces of this

OutputType output_type(DType type) {
  return type == DType::kF32    ? OutputType::kF32
         : type == DType::kBF16 ? OutputType::kBF16
                                : OutputType::kF16;
}

}  // namespace

Support takes_operands(const GemmDesc& d, const DeviceInfo& device) {
  if (device.kind != DeviceKind::kCuda) return Support::no("runs on a CUDA device only");
  if (device.sm != 90) {
    return Support::no("needs compute capability 9.0, found sm_{}", device.sm);
  }
  return takes_problem(d);
}

Support takes_problem(const GemmDesc& d) {
  if (d.layout != WeightLayout::kSm90) {
    return Support::no("reads layout {}, found {}", to_string(WeightLayout::kSm90),
                       to_string(d.layout));
  }
  if (d.a_type == DType::kU8) return Support::no("a must not be quantized, found U8");
  if (d.activation == ActivationMode::kFp4) {
    const int64_t block = block_size(d.weight);
    if (d.k % block != 0) {
      return Support::no("fp4 activations need k to be a multiple of {}, found {}", block, d.k);
    }
  } else if (d.activation == ActivationMode::kInt8) {
    return Support::no("multiplies 16-bit and fp4 activations, found mode {}",
                       to_string(d.activation));
  } else if (d.a_type == DType::kF16) {
    if (d.activation == ActivationMode::kBf16) {
      return Support::no("mode bf16 needs a in BF16, found {}", to_string(d.a_type));
    }
    if (d.weight != WeightFormat::kNvfp4) {
      return Support::no("a in F16 needs nvfp4 weights: scales of {} exceed its range",
                         to_string(d.weight));
    }
  } else if (d.a_type != DType::kBF16) {
    return Support::no("a must be F16 or BF16, found {}", to_string(d.a_type));
  }
  if (d.d_type != DType::kBF16 && d.d_type != DType::kF16 && d.d_type != DType::kF32) {
    return Support::no("d must be F32, F16 or BF16, found {}", to_string(d.d_type));
  }
  if (d.k % 8 != 0) return Support::no("k must be a multiple of 8, found {}", d.k);
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max() - 1024;
  if (d.m > kMax || d.n > kMax || d.k > kMax) {
    return Support::no("m, n and k must be at most {}", kMax);
  }
  return Support::yes();
}

void check_operands(const GemmArgs& args, Stream stream) {
  if (stream.load) return;
  const GemmDesc& d = args.desc;
  const size_t element = size_of(d.d_type);
  const bool copied = d.activation != ActivationMode::kFp4;  // by the GEMM itself
  cuda::check_device_pointer("gemm", "a", args.a.data, copied ? kCopyBytes : size_of(d.a_type),
                             stream.index);
  cuda::check_device_pointer("gemm", "d", args.d.data, element, stream.index);
  if (d.has_c) cuda::check_device_pointer("gemm", "c", args.c.data, element, stream.index);
  if (d.has_bias) {
    cuda::check_device_pointer("gemm", "bias", args.bias, sizeof(float), stream.index);
  }
  cuda::check_weight_device(*args.b, stream.index);
  NIBBLE_CHECK(!copied || args.a.stride * 2 % static_cast<int64_t>(kCopyBytes) == 0 || d.m == 1,
               ErrorCode::kInvalidArgument,
               "gemm: a's rows must be a multiple of 8 elements apart, found {}", args.a.stride);
}

namespace {

constexpr size_t kAlignment = 256;
size_t value_bytes(const GemmDesc& d) {
  return (static_cast<size_t>(d.m) * d.k * 2 + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

size_t activation_bytes(const GemmDesc& d) {
  if (d.activation != ActivationMode::kFp4) return 0;
  return value_bytes(d) + kAlignment + kFp4ScratchWords * sizeof(uint32_t);
}

Activations prepare_activations(const GemmArgs& args, Stream stream) {
  const GemmDesc& d = args.desc;
  if (d.activation != ActivationMode::kFp4) {
    return {.data = args.a.row<const uint16_t>(0),
            .stride = args.a.stride,
            .type = d.a_type == DType::kF16 ? Wide::kF16 : Wide::kBF16};
  }
  auto* const memory = static_cast<uint8_t*>(args.workspace);
  Fp4ActivationParams p = {};
  p.src = args.a.row<const uint8_t>(0);
  p.src_row_bytes = args.a.stride * static_cast<int64_t>(size_of(d.a_type));
  p.type = d.a_type;
  p.format = d.weight;
  p.m = d.m;
  p.k = d.k;
  p.values = reinterpret_cast<uint16_t*>(memory);
  p.scale = reinterpret_cast<float*>(memory + value_bytes(d));
  p.given_scale = std::max(0.0f, args.b->input_decode_scale);
  p.scratch = reinterpret_cast<uint32_t*>(memory + value_bytes(d) + kAlignment);
  launch_fp4_activations(p, stream);
  return {
      .data = p.values, .stride = d.k, .type = Wide::kBF16, .scale = p.scale, .own_kernel = true};
}

Output output_of(const GemmArgs& args, const Activations& a) {
  const GemmDesc& d = args.desc;
  return {.d = args.d.data,
          .d_stride = args.d.stride,
          .c = d.has_c ? args.c.data : nullptr,
          .c_stride = args.c.stride,
          .bias = d.has_bias ? args.bias : nullptr,
          .a_scale = a.scale,
          .columns = static_cast<int>(d.columns()),
          .type = output_type(d.d_type),
          .silu_mul = d.silu_mul};
}

}  // namespace nibble::sm90
