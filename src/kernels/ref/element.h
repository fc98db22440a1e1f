// One element at a time of a matrix of any activation type.
#pragma once

#include <cstdint>

#include "formats/e4m3.h"
#include "formats/float16.h"
#include "ops/impl.h"

namespace nibble::ref {

inline double load(const MatrixView& v, int64_t i, int64_t j) {
  switch (v.dtype) {
    case DType::kF16:
      return fp16_to_float(v.row<const uint16_t>(i)[j]);
    case DType::kBF16:
      return bf16_to_float(v.row<const uint16_t>(i)[j]);
    case DType::kF8E4M3:
      return e4m3_to_float(v.row<const uint8_t>(i)[j]);
    default:
      return v.row<const float>(i)[j];
  }
}

// Rounded to nearest even, once more for the 16-bit types.
inline void store(const MatrixView& v, int64_t i, int64_t j, double value) {
  const auto x = static_cast<float>(value);
  switch (v.dtype) {
    case DType::kF16:
      v.row<uint16_t>(i)[j] = float_to_fp16(x);
      break;
    case DType::kBF16:
      v.row<uint16_t>(i)[j] = float_to_bf16(x);
      break;
    default:
      v.row<float>(i)[j] = x;
  }
}

inline Support takes_activations(DType t) {
  if (t == DType::kF32 || t == DType::kF16 || t == DType::kBF16) return Support::yes();
  return Support::no("activations must be F32, F16 or BF16, found {}", to_string(t));
}

inline Support on_cpu(const DeviceInfo& device) {
  return device.kind == DeviceKind::kCpu ? Support::yes() : Support::no("runs on a CPU only");
}

inline Support on_cpu(const DeviceInfo& device, DType type) {
  const Support here = on_cpu(device);
  return here ? takes_activations(type) : here;
}

}  // namespace nibble::ref
