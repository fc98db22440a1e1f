// Round-to-nearest quantization of one matrix at the speed of a copy.
#include "kernels/cuda/quantize_rows.cuh"

namespace nibble::cuda {
namespace {

template <WeightFormat kFormat, DType kType>
void launch_type(const QuantizeParams& p, int rows, nibble::Stream stream) {
  if constexpr (size_of(kType) != 2) {
    launch_variant<Variant<kFormat, kType, 1, kType == DType::kF32 ? 10 : 8>>(p, stream);
  } else if constexpr (kFormat == WeightFormat::kMxfp4) {
    if (rows == 1) return launch_variant<Variant<kFormat, kType, 1, 12>>(p, stream);
    launch_variant<Variant<kFormat, kType, 2, 10>>(p, stream);
  } else {
    if (rows == 1) return launch_variant<Variant<kFormat, kType, 1, 14>>(p, stream);
    if (rows == 2) return launch_variant<Variant<kFormat, kType, 2, 12>>(p, stream);
    launch_variant<Variant<kFormat, kType, 4, 7>>(p, stream);
  }
}

template <WeightFormat kFormat>
void launch_format(const QuantizeParams& p, int rows, nibble::Stream stream) {
  switch (p.type) {
    case DType::kF32:
      return launch_type<kFormat, DType::kF32>(p, rows, stream);
    case DType::kF16:
      return launch_type<kFormat, DType::kF16>(p, rows, stream);
    case DType::kF8E4M3:
      return launch_type<kFormat, DType::kF8E4M3>(p, rows, stream);
    default:
      return launch_type<kFormat, DType::kBF16>(p, rows, stream);
  }
}

}  // namespace

void launch_quantize(const QuantizeParams& params, int rows_per_thread, nibble::Stream stream) {
  if (params.format == WeightFormat::kMxfp4) {
    launch_format<WeightFormat::kMxfp4>(params, rows_per_thread, stream);
  } else {
    launch_format<WeightFormat::kNvfp4>(params, rows_per_thread, stream);
  }
}

}  // namespace nibble::cuda
