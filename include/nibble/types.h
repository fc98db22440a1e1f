// The words every part of Nibble shares. No CUDA, torch or JSON headers here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace nibble {

enum class DType : uint8_t { kF32, kF16, kBF16, kF8E4M3, kF8E5M2, kU8, kI8, kI32, kI64, kBool };

// How a matrix of weights is stored.
//   kNvfp4: e2m1 codes, an e4m3 scale per 16 along K, one fp32 global decode scale per segment
//   kMxfp4: e2m1 codes, a ue8m0 scale per 32 along K
//   kF8:    e4m3 codes, one fp32 decode scale per row
enum class WeightFormat : uint8_t { kF32, kF16, kBF16, kNvfp4, kMxfp4, kF8 };

// Order of block scales in memory; see formats/scale_layout.h for the index functions.
enum class ScaleLayout : uint8_t { kLinear, kSwizzled128x4, kSwizzled8x4 };

// What a GEMM does to its activations before multiplying; part of the descriptor, never a silent
// side effect of a backend.
enum class ActivationMode : uint8_t {
  k16Bit,  // not quantized: products of the given values, fp32 sums
  kFp4,    // quantized to the weight's 4-bit format
  kInt8,   // quantized to 8 bits per block of 16 along K, integer dot products
  kBf16,   // rounded to bf16 (to nearest even); products exact, fp32 sums
};

// How an MXFP4 block's power-of-two scale comes from its largest magnitude (all three are in use):
// kCeil 2^ceil(log2(amax/6)), never clips; kFloor 2^(floor(log2 amax)-2), OCP MX 1.0; kEven rounds
// amax's mantissa to one bit first.
enum class Mxfp4ScaleRule : uint8_t { kCeil, kFloor, kEven };

// How block scales are chosen: round to nearest from the block's amax, least squared error over the
// neighbouring scales, or the better of "amax maps to 6" and "amax maps to 4" (NVFP4 only).
enum class QuantizeMethod : uint8_t { kRtn, kMse, kFourOverSix };

// How a quantized model names and scales its tensors on disk: NVIDIA ModelOpt's or vLLM's
// compressed-tensors.
enum class Convention : uint8_t { kModelOpt, kCompressedTensors };

enum class DeviceKind : uint8_t { kCpu, kCuda };

// Bytes of one element.
constexpr size_t size_of(DType t) {
  switch (t) {
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kF16:
    case DType::kBF16:
      return 2;
    case DType::kI64:
      return 8;
    default:
      return 1;
  }
}

constexpr std::string_view to_string(DType t) {
  constexpr std::string_view names[] = {"F32", "F16", "BF16", "F8_E4M3", "F8_E5M2",
                                        "U8",  "I8",  "I32",  "I64",     "BOOL"};
  return names[static_cast<int>(t)];
}
constexpr std::string_view to_string(WeightFormat f) {
  constexpr std::string_view names[] = {"fp32", "fp16", "bf16", "nvfp4", "mxfp4", "fp8"};
  return names[static_cast<int>(f)];
}
constexpr std::string_view to_string(ScaleLayout l) {
  constexpr std::string_view names[] = {"linear", "128x4", "8x4"};
  return names[static_cast<int>(l)];
}
constexpr std::string_view to_string(ActivationMode m) {
  constexpr std::string_view names[] = {"16bit", "fp4", "int8", "bf16"};
  return names[static_cast<int>(m)];
}

inline constexpr ActivationMode kActivationModes[] = {ActivationMode::k16Bit, ActivationMode::kFp4,
                                                      ActivationMode::kInt8, ActivationMode::kBf16};
constexpr std::string_view to_string(Mxfp4ScaleRule r) {
  constexpr std::string_view names[] = {"ceil", "floor", "even"};
  return names[static_cast<int>(r)];
}
constexpr std::string_view to_string(QuantizeMethod m) {
  constexpr std::string_view names[] = {"rtn", "mse", "four-over-six"};
  return names[static_cast<int>(m)];
}

constexpr std::string_view to_string(Convention c) {
  constexpr std::string_view names[] = {"modelopt", "compressed-tensors"};
  return names[static_cast<int>(c)];
}

// Elements that share one block scale along K; 0 where the format has none.
constexpr int64_t block_size(WeightFormat f) {
  return f == WeightFormat::kNvfp4 ? 16 : f == WeightFormat::kMxfp4 ? 32 : 0;
}
constexpr bool is_fp4(WeightFormat f) { return block_size(f) != 0; }

// Bytes of one row of k weights, scales not counted.
constexpr int64_t row_bytes(WeightFormat f, int64_t k) {
  switch (f) {
    case WeightFormat::kF32:
      return 4 * k;
    case WeightFormat::kF16:
    case WeightFormat::kBF16:
      return 2 * k;
    case WeightFormat::kF8:
      return k;
    default:
      return k / 2;
  }
}

}  // namespace nibble
