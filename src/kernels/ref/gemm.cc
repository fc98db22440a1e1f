#include "kernels/ref/gemm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/thread_pool.h"
#include "formats/int8_block.h"
#include "formats/mxfp4.h"
#include "formats/nvfp4.h"
#include "formats/scale_layout.h"
#include "kernels/ref/element.h"

namespace nibble::ref {
namespace {

// A as it was given, quantized.
std::vector<double> dequantized(const GemmArgs& args) {
  const GemmDesc& d = args.desc;
  const int64_t block = block_size(d.weight), columns = d.k / block;
  const bool mx = d.weight == WeightFormat::kMxfp4;
  const double decode = mx ? 1.0 : *args.a_decode_scale;
  std::vector<double> values(d.m * d.k);
  for (int64_t i = 0; i < d.m; ++i) {
    for (int64_t k = 0; k < d.k; ++k) {
      const uint8_t code = unpack_e2m1(args.a.row<const uint8_t>(i), static_cast<int>(k));
      const uint8_t scale = args.a_scales[scale_offset(d.a_layout, i, k / block, columns)];
      values[i * d.k + k] =
          decode * (mx ? dequantize_mxfp4(code, scale) : dequantize_nvfp4(code, scale, 1.0f));
    }
  }
  return values;
}

std::vector<float> widen_activations(const MatrixView& a) {
  std::vector<float> out(a.rows * a.cols);
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t j = 0; j < a.cols; ++j) {
      out[i * a.cols + j] = static_cast<float>(load(a, i, j));
    }
  }
  return out;
}

float activation_decode_scale(const GemmArgs& args, const std::vector<float>& x) {
  if (args.b->input_decode_scale > 0) return args.b->input_decode_scale;
  float amax = 0;
  for (const float v : x) amax = std::max(amax, std::fabs(v));
  return nvfp4_decode_scale(amax);
}

// The values that A has once it is quantized as the mode says, exact in double.
std::vector<double> activations(const GemmArgs& args) {
  if (args.desc.a_type == DType::kU8) return dequantized(args);
  const std::vector<float> x = widen_activations(args.a);
  std::vector<double> values(x.begin(), x.end());
  const int64_t size = static_cast<int64_t>(x.size());
  switch (args.desc.activation) {
    case ActivationMode::k16Bit:
      break;
    case ActivationMode::kInt8:
      for (int64_t i = 0; i < size; i += kInt8BlockSize) {
        int8_t codes[kInt8BlockSize];
        const double scale = quantize_int8_block(&x[i], codes);
        for (int j = 0; j < kInt8BlockSize; ++j) values[i + j] = codes[j] * scale;
      }
      break;
    case ActivationMode::kBf16:
      for (double& value : values) value = bf16_to_float(float_to_bf16(static_cast<float>(value)));
      break;
    case ActivationMode::kFp4:
      if (args.desc.weight == WeightFormat::kMxfp4) {
        for (int64_t i = 0; i < size; i += kMxfp4BlockSize) {
          uint8_t codes[kMxfp4BlockSize / 2];
          float back[kMxfp4BlockSize];
          const uint8_t scale = quantize_mxfp4_block(&x[i], Mxfp4ScaleRule::kCeil, codes);
          dequantize_mxfp4_block(codes, scale, back);
          std::copy_n(back, kMxfp4BlockSize, &values[i]);
        }
      } else {
        const float decode = activation_decode_scale(args, x);
        for (int64_t i = 0; i < size; i += kNvfp4BlockSize) {
          uint8_t codes[kNvfp4BlockSize / 2];
          float back[kNvfp4BlockSize];
          const uint8_t scale = quantize_nvfp4_block(&x[i], 1.0f / decode, codes);
          dequantize_nvfp4_block(codes, scale, 1.0f, back);
          for (int j = 0; j < kNvfp4BlockSize; ++j) {
            values[i + j] = static_cast<double>(back[j]) * decode;
          }
        }
      }
  }
  return values;
}

// A row of D, quantized.
void store_quantized(const GemmArgs& args, int64_t i, const std::vector<float>& values) {
  const GemmDesc& d = args.desc;
  const int64_t columns = d.columns() / kNvfp4BlockSize;
  for (int64_t j = 0; j < columns; ++j) {
    args.d_scales[scale_offset(d.d_layout, i, j, columns)] =
        quantize_nvfp4_block(&values[j * kNvfp4BlockSize], 1.0f / *args.d_decode_scale,
                             args.d.row<uint8_t>(i) + j * kNvfp4BlockBytes);
  }
}

void launch(const GemmArgs& args, const KernelConfig&, Stream stream) {
  const GemmDesc& d = args.desc;
  const PreparedWeight& b = *args.b;
  const std::vector<double> a = activations(args);
  std::vector<double> y(d.m * d.n);
  stream.pool->parallel_for(d.n, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> row(d.k);
    for (int64_t j = begin; j < end; ++j) {
      b.decode_row(b, j, row.data());
      const double alpha = b.alpha(j);
      const double bias = d.has_bias ? args.bias[j] : 0.0;
      for (int64_t i = 0; i < d.m; ++i) {
        double sum = 0;
        for (int64_t k = 0; k < d.k; ++k) sum += a[i * d.k + k] * row[k];
        y[i * d.n + j] = alpha * sum + bias;
      }
    }
  });
  const bool quantized = d.d_type == DType::kU8;
  std::vector<float> rounded(d.columns());
  if (quantized) {
    std::fill_n(args.d_scales, scale_bytes(d.d_layout, d.m, d.columns() / kNvfp4BlockSize), 0);
  }
  for (int64_t i = 0; i < d.m; ++i) {
    const double* values = &y[i * d.n];
    for (int64_t j = 0; j < d.columns(); ++j) {
      const double value =
          d.silu_mul ? values[j] / (1 + std::exp(-values[j])) * values[d.n / 2 + j] : values[j];
      if (quantized) {
        rounded[j] = bf16_to_float(float_to_bf16(static_cast<float>(value)));
      } else {
        store(args.d, i, j, value + (d.has_c ? load(args.c, i, j) : 0.0));
      }
    }
    if (quantized) store_quantized(args, i, rounded);
  }
}

Support can_implement(const GemmDesc& d, const DeviceInfo& device) {
  if (const Support s = on_cpu(device); !s) return s;
  for (const DType type : {d.a_type, d.d_type}) {
    if (type == DType::kU8) continue;
    if (const Support s = takes_activations(type); !s) return s;
  }
  if (d.activation == ActivationMode::kInt8 && d.k % kInt8BlockSize != 0) {
    return Support::no("int8 activations need k to be a multiple of {}, found {}", kInt8BlockSize,
                       d.k);
  }
  const int64_t block = d.weight == WeightFormat::kMxfp4 ? kMxfp4BlockSize : kNvfp4BlockSize;
  if (d.activation == ActivationMode::kFp4 && d.k % block != 0) {
    return Support::no("fp4 activations need k to be a multiple of {}, found {}", block, d.k);
  }
  return Support::yes();
}

}  // namespace

const GemmImpl kGemm = {.name = "ref_gemm", .can_implement = can_implement, .launch = launch};

}  // namespace nibble::ref
