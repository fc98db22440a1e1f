// ops/quantize.h word for word: one block of formats/ after the other.
#include "kernels/ref/quantize.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "formats/block_search.h"
#include "formats/mxfp4.h"
#include "formats/nvfp4.h"
#include "formats/scale_layout.h"
#include "kernels/ref/element.h"
#include "kernels/ref/model_ops.h"

namespace nibble::ref {
namespace {

// What is quantized, by the reference's own ops; `storage` holds it unless it is src.
MatrixView input_of(const QuantizeArgs& args, Stream stream, std::vector<uint8_t>& storage) {
  const QuantizeDesc& d = args.desc;
  if (d.input == QuantizeInput::kPlain) return args.src;
  storage.resize(static_cast<size_t>(d.m * d.k) * size_of(d.src_type));
  const MatrixView y{storage.data(), d.src_type, d.m, d.k, d.k};
  if (d.input == QuantizeInput::kSiluMul) {
    kSiluMul.launch({{d.m, d.k, d.src_type}, args.src, y}, {}, stream);
    return y;
  }
  if (d.has_residual) {
    for (int64_t i = 0; i < d.m; ++i) {
      for (int64_t j = 0; j < d.k; ++j) {
        store(args.residual, i, j, load(args.src, i, j) + load(args.residual, i, j));
      }
    }
  }
  kRmsNorm.launch({{d.m, d.k, d.src_type},
                   d.has_residual ? args.residual : args.src,
                   args.norm_weight,
                   args.norm_eps,
                   y},
                  {}, stream);
  return y;
}

float value(const QuantizeArgs& args, const MatrixView& x, int64_t i, int64_t j) {
  const auto v = static_cast<float>(load(x, i, j));
  return x.dtype == DType::kF8E4M3 ? v * args.src_scale : v;
}

float global_decode_scale(const QuantizeArgs& args, const RowGroup& group, int64_t index) {
  if (args.desc.global == GlobalScale::kValue) return args.global_decode_scale;
  if (args.desc.global == GlobalScale::kComputed) {
    float amax = 0;
    for (int64_t i = group.begin; i < group.end; ++i) {
      // std::fmax, like the formats' amax, passes over NaN.
      for (int64_t j = 0; j < args.desc.k; ++j) {
        amax = std::fmax(amax, std::fabs(value(args, args.src, i, j)));
      }
    }
    args.scale_memory[index] = nvfp4_decode_scale(amax);
  }
  return args.scale_memory[index];
}

void quantize(const QuantizeArgs& args, const KernelConfig&, Stream stream) {
  const QuantizeDesc& d = args.desc;
  const int64_t block = block_size(d.format);
  const int64_t cols = d.k / block;
  std::vector<uint8_t> storage;
  const MatrixView input = input_of(args, stream, storage);
  int64_t index = 0;
  for (const RowGroup& g : row_groups(args)) {
    const float encode_scale = 1.0f / global_decode_scale(args, g, index++);
    uint8_t* scales = args.scales + g.scale_row * padded_scale_cols(d.layout, cols);
    std::memset(scales, 0, static_cast<size_t>(scale_bytes(d.layout, g.end - g.begin, cols)));
    for (int64_t i = g.begin; i < g.end; ++i) {
      for (int64_t b = 0; b < cols; ++b) {
        float x[kMxfp4BlockSize];
        for (int64_t j = 0; j < block; ++j) x[j] = value(args, input, i, b * block + j);
        scales[scale_offset(d.layout, i - g.begin, b, cols)] =
            quantize_block(d.format, d.method, d.scale_rule, x, encode_scale,
                           args.codes + (i * d.k + b * block) / 2);
      }
    }
  }
}

void dequantize(const DequantizeArgs& args, const KernelConfig&, Stream) {
  const DequantizeDesc& d = args.desc;
  const int64_t block = block_size(d.format);
  const int64_t cols = d.k / block;
  for (int64_t i = 0; i < d.m; ++i) {
    const uint8_t* codes = args.codes + i * d.k / 2;
    for (int64_t j = 0; j < d.k; ++j) {
      const uint8_t code = unpack_e2m1(codes + j / 2, static_cast<int>(j % 2));
      const uint8_t scale = args.scales[scale_offset(d.layout, i, j / block, cols)];
      store(args.dst, i, j,
            d.format == WeightFormat::kMxfp4
                ? dequantize_mxfp4(code, scale)
                : dequantize_nvfp4(code, scale, args.global_decode_scale));
    }
  }
}

Support can_quantize(const QuantizeDesc& d, const DeviceInfo& device) {
  if (d.src_type == DType::kF8E4M3) return on_cpu(device);
  return on_cpu(device, d.src_type);
}

Support can_dequantize(const DequantizeDesc& d, const DeviceInfo& device) {
  return on_cpu(device, d.dst_type);
}

}  // namespace

const QuantizeImpl kQuantize = {
    .name = "ref_quantize", .can_implement = can_quantize, .launch = quantize};
const DequantizeImpl kDequantize = {
    .name = "ref_dequantize", .can_implement = can_dequantize, .launch = dequantize};

}  // namespace nibble::ref
