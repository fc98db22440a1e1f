#include "kernels/cpu/row_gemm.h"

#include <algorithm>

#include "base/thread_pool.h"
#include "kernels/cpu/activations.h"
#include "kernels/cpu/row_loops.h"

namespace nibble::cpu {
namespace {

constexpr int kMaxTokens = 8;

void run(const GemmArgs& args, const RowLoops& loops, Stream stream) {
  const GemmDesc& d = args.desc;
  const PreparedWeight& w = *args.b;
  const MatrixView a = rounded_activations(args, stream);
  const int64_t stride = row_bytes(d.weight, d.k);
  const float unit = d.weight == WeightFormat::kF8 ? 256.0f : 1.0f;
  stream.pool->parallel_for(d.n, kRowBlockRows, [&](int64_t begin, int64_t end) {
    float sums[kMaxTokens * kRowBlockRows];
    for (int64_t row = begin; row < end; row += kRowBlockRows) {
      const int rows = static_cast<int>(std::min<int64_t>(kRowBlockRows, end - row));
      for (int64_t first = 0; first < d.m; first += loops.max_tokens) {
        const int tokens = static_cast<int>(std::min<int64_t>(loops.max_tokens, d.m - first));
        loops.multiply({.format = d.weight,
                        .b = w.codes + row * stride,
                        .b_stride = stride,
                        .rows = rows,
                        .a = a.row<const float>(first),
                        .a_stride = a.stride,
                        .tokens = tokens,
                        .k = d.k,
                        .out = sums});
        for (int r = 0; r < rows; ++r) {
          const int64_t j = row + r;
          const float alpha = (w.row_alpha != nullptr ? w.row_alpha[j] : w.alpha(j)) * unit;
          for (int t = 0; t < tokens; ++t) {
            const float c = d.has_c ? args.c.row<const float>(first + t)[j] : 0.0f;
            args.d.row<float>(first + t)[j] = sums[t * kRowBlockRows + r] * alpha + c;
          }
        }
      }
    }
  });
}

template <const RowLoops& kLoops>
void launch(const GemmArgs& args, const KernelConfig&, Stream stream) {
  run(args, kLoops, stream);
}

template <bool CpuFeatures::*kFeature>
Support can_implement(const GemmDesc& d, const DeviceInfo& device) {
  if (device.kind != DeviceKind::kCpu) return Support::no("runs on a CPU only");
  if (!(device.cpu.*kFeature)) return Support::no("this processor lacks its instructions");
  if (d.layout != WeightLayout::kCanonical || is_fp4(d.weight)) {
    return Support::no("reads canonical weights of 8 bits or more, found {} {}",
                       to_string(d.layout), to_string(d.weight));
  }
  if (d.a_type != DType::kF32 || d.d_type != DType::kF32) {
    return Support::no("activations must be F32, found {} and {}", to_string(d.a_type),
                       to_string(d.d_type));
  }
  if (d.activation == ActivationMode::kFp4) return Support::no("no fp4 activations");
  if (d.k % 16 != 0) return Support::no("k must be a multiple of 16, found {}", d.k);
  return Support::yes();
}

size_t workspace_bytes(const GemmDesc& d, const KernelConfig&, const DeviceInfo&) {
  return rounded_activation_bytes(d);
}

}  // namespace

const GemmImpl kAvx2RowGemm = {.name = "cpu_avx2_row_gemm",
                               .can_implement = can_implement<&CpuFeatures::avx2>,
                               .launch = launch<avx2::kRows>,
                               .workspace_bytes = workspace_bytes};
const GemmImpl kAvx512RowGemm = {.name = "cpu_avx512_row_gemm",
                                 .can_implement = can_implement<&CpuFeatures::avx512>,
                                 .launch = launch<avx512::kRows>,
                                 .workspace_bytes = workspace_bytes};

}  // namespace nibble::cpu
