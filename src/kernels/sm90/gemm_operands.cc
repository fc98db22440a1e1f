#include "kernels/sm90/gemm_operands.h"

#include <limits>

#include "base/check.h"
#include "kernels/cuda/pointer.h"

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
  if (d.layout != WeightLayout::kSm90) {
    return Support::no("reads layout {}, found {}", to_string(WeightLayout::kSm90),
                       to_string(d.layout));
  }
  if (d.activation != ActivationMode::k16Bit && d.activation != ActivationMode::kBf16) {
    return Support::no("multiplies 16-bit activations, found mode {}", to_string(d.activation));
  }
  if (d.a_type != DType::kBF16) return Support::no("a must be BF16, found {}", to_string(d.a_type));
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
  const GemmDesc& d = args.desc;
  const size_t element = size_of(d.d_type);
  cuda::check_device_pointer("gemm", "a", args.a.data, kCopyBytes, stream.index);
  cuda::check_device_pointer("gemm", "d", args.d.data, element, stream.index);
  if (d.has_c) cuda::check_device_pointer("gemm", "c", args.c.data, element, stream.index);
  NIBBLE_CHECK(args.a.stride * 2 % static_cast<int64_t>(kCopyBytes) == 0 || d.m == 1,
               ErrorCode::kInvalidArgument,
               "gemm: a's rows must be a multiple of 8 elements apart, found {}", args.a.stride);
}

Output output_from(const GemmArgs& args, int64_t first) {
  const auto element = static_cast<int64_t>(size_of(args.desc.d_type));
  const auto rows_from = [&](const MatrixView& x) {
    return static_cast<uint8_t*>(x.data) + first * x.stride * element;
  };
  return {.d = rows_from(args.d),
          .d_stride = args.d.stride,
          .c = args.desc.has_c ? rows_from(args.c) : nullptr,
          .c_stride = args.c.stride,
          .type = output_type(args.desc.d_type)};
}

}  // namespace nibble::sm90
