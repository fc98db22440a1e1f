// ops/quantize.h word for word: one block of formats/ after the other.
#include "kernels/ref/quantize.h"

#include <cmath>
#include <cstring>

#include "formats/block_search.h"
#include "formats/mxfp4.h"
#include "formats/nvfp4.h"
#include "formats/scale_layout.h"
#include "kernels/ref/element.h"

namespace nibble::ref {
namespace {

float global_decode_scale(const QuantizeArgs& args) {
  if (args.desc.global == GlobalScale::kValue) return args.global_decode_scale;
  if (args.desc.global == GlobalScale::kComputed) {
    double amax = 0;
    for (int64_t i = 0; i < args.desc.m; ++i) {
      // std::fmax, like the formats' amax, passes over NaN.
      for (int64_t j = 0; j < args.desc.k; ++j) {
        amax = std::fmax(amax, std::fabs(load(args.src, i, j)));
      }
    }
    *args.scale_memory = nvfp4_decode_scale(static_cast<float>(amax));
  }
  return *args.scale_memory;
}

void quantize(const QuantizeArgs& args, const KernelConfig&, Stream) {
  const QuantizeDesc& d = args.desc;
  const int64_t block = block_size(d.format);
  const int64_t cols = d.k / block;
  const float encode_scale = 1.0f / global_decode_scale(args);
  std::memset(args.scales, 0, scale_bytes(d.layout, d.m, cols));
  for (int64_t i = 0; i < d.m; ++i) {
    for (int64_t b = 0; b < cols; ++b) {
      float x[kMxfp4BlockSize];
      for (int64_t j = 0; j < block; ++j) {
        x[j] = static_cast<float>(load(args.src, i, b * block + j));
      }
      args.scales[scale_offset(d.layout, i, b, cols)] =
          quantize_block(d.format, d.method, d.scale_rule, x, encode_scale,
                         args.codes + (i * d.k + b * block) / 2);
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
