#include "kernels/ref/gemm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/thread_pool.h"
#include "formats/int8_block.h"
#include "formats/mxfp4.h"
#include "formats/nvfp4.h"
#include "kernels/ref/element.h"

namespace nibble::ref {
namespace {

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
  for (int64_t i = 0; i < d.m; ++i) {
    const double* values = &y[i * d.n];
    for (int64_t j = 0; j < d.columns(); ++j) {
      const double value =
          d.silu_mul ? values[j] / (1 + std::exp(-values[j])) * values[d.n / 2 + j] : values[j];
      store(args.d, i, j, value + (d.has_c ? load(args.c, i, j) : 0.0));
    }
  }
}

Support can_implement(const GemmDesc& d, const DeviceInfo& device) {
  if (const Support s = on_cpu(device, d.a_type); !s) return s;
  if (const Support s = takes_activations(d.d_type); !s) return s;
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
