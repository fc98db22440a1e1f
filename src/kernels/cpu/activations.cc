#include "kernels/cpu/activations.h"

#include "base/thread_pool.h"
#include "formats/float16.h"
#include "formats/int8_block.h"

namespace nibble::cpu {

MatrixView rounded_activations(const GemmArgs& args, Stream stream) {
  const GemmDesc& d = args.desc;
  if (d.activation == ActivationMode::k16Bit) return args.a;
  const MatrixView out{args.workspace, DType::kF32, d.m, d.k, d.k};
  stream.pool->parallel_for(d.m, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* x = args.a.row<const float>(i);
      float* y = out.row<float>(i);
      if (d.activation == ActivationMode::kBf16) {
        for (int64_t k = 0; k < d.k; ++k) y[k] = bf16_to_float(float_to_bf16(x[k]));
        continue;
      }
      for (int64_t k = 0; k < d.k; k += kInt8BlockSize) {
        int8_t codes[kInt8BlockSize];
        const float scale = quantize_int8_block(x + k, codes);
        for (int j = 0; j < kInt8BlockSize; ++j) y[k + j] = codes[j] * scale;
      }
    }
  });
  return out;
}

size_t rounded_activation_bytes(const GemmDesc& desc) {
  if (desc.activation == ActivationMode::k16Bit) return 0;
  return static_cast<size_t>(desc.m * desc.k) * sizeof(float);
}

}  // namespace nibble::cpu
