// The block functions of formats/ in loops that compilers vectorise.
#include "kernels/cpu/quantize.h"

#include "formats/block_search.h"
#include "formats/float16.h"
#include "formats/mxfp4.h"
#include "formats/nvfp4.h"
#include "kernels/cpu/quantize_rows.h"

namespace nibble::cpu {
namespace {

void widen(DType type, const uint16_t* src, int64_t count, float* out) {
  if (type == DType::kBF16) {
    for (int64_t i = 0; i < count; ++i) out[i] = bf16_to_float(src[i]);
  } else {
    for (int64_t i = 0; i < count; ++i) out[i] = fp16_to_float(src[i]);
  }
}

void narrow(DType type, const float* x, int64_t count, uint16_t* out) {
  if (type == DType::kBF16) {
    for (int64_t i = 0; i < count; ++i) out[i] = float_to_bf16(x[i]);
  } else {
    for (int64_t i = 0; i < count; ++i) out[i] = float_to_fp16(x[i]);
  }
}

void quantize_blocks(const QuantizeDesc& d, float encode_scale, const float* x, int64_t blocks,
                     uint8_t* codes, uint8_t* scales) {
  const auto for_blocks = [&](int64_t size, auto quantize_block) {
    for (int64_t b = 0; b < blocks; ++b) {
      scales[b] = quantize_block(x + b * size, codes + b * size / 2);
    }
  };
  if (d.format == WeightFormat::kMxfp4) {
    if (d.method == QuantizeMethod::kMse) {
      for_blocks(kMxfp4BlockSize, quantize_mxfp4_block_mse);
    } else {
      for_blocks(kMxfp4BlockSize, [&](const float* v, uint8_t* c) {
        return quantize_mxfp4_block(v, d.scale_rule, c);
      });
    }
    return;
  }
  switch (d.method) {
    case QuantizeMethod::kRtn:
      return for_blocks(kNvfp4BlockSize, [&](const float* v, uint8_t* c) {
        return quantize_nvfp4_block(v, encode_scale, c);
      });
    case QuantizeMethod::kMse:
      return for_blocks(kNvfp4BlockSize, [&](const float* v, uint8_t* c) {
        return quantize_nvfp4_block_mse(v, encode_scale, c);
      });
    case QuantizeMethod::kFourOverSix:
      return for_blocks(kNvfp4BlockSize, [&](const float* v, uint8_t* c) {
        return quantize_nvfp4_block_four_over_six(v, encode_scale, c);
      });
  }
}

void dequantize_blocks(WeightFormat format, float global_decode_scale, const uint8_t* codes,
                       const uint8_t* scales, int64_t blocks, float* x) {
  for (int64_t b = 0; b < blocks; ++b) {
    if (format == WeightFormat::kMxfp4) {
      dequantize_mxfp4_block(codes + b * kMxfp4BlockBytes, scales[b], x + b * kMxfp4BlockSize);
    } else {
      dequantize_nvfp4_block(codes + b * kNvfp4BlockBytes, scales[b], global_decode_scale,
                             x + b * kNvfp4BlockSize);
    }
  }
}

}  // namespace

const QuantizeImpl kPortableQuantize = {
    .name = "cpu_portable_quantize",
    .can_implement = can_quantize,
    .launch = [](const QuantizeArgs& args, const KernelConfig&, Stream stream) {
      quantize_rows(args, stream, {widen, quantize_blocks});
    }};

const DequantizeImpl kPortableDequantize = {
    .name = "cpu_portable_dequantize",
    .can_implement = can_dequantize,
    .launch = [](const DequantizeArgs& args, const KernelConfig&, Stream stream) {
      dequantize_rows(args, stream, {dequantize_blocks, narrow});
    }};

}  // namespace nibble::cpu
