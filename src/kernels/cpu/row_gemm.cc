#include "kernels/cpu/row_gemm.h"

#include <algorithm>
#include <cmath>

#include "base/thread_pool.h"
#include "kernels/cpu/activations.h"
#include "kernels/cpu/row_loops.h"

namespace nibble::cpu {
namespace {

constexpr int kMaxTokens = 8;

// e4m3 is widened by shifting its bits into fp32's place, which leaves it 2^120 too small: a third
// of the instructions that an exact conversion takes. So that no product underflows, the rows of A
// are multiplied by a power of two first.
constexpr int kE4m3Shift = 120;
// amax goes to about 2^100; the shift is bounded so that both it and its undoing are finite.
int shift_for(float amax) {
  int exponent = 127;
  if (std::isfinite(amax)) std::frexp(amax, &exponent);
  return std::clamp(100 - exponent, -6, 126);
}

// Writes x * 2^n and returns 2^(120 - n).
float scale_row(const float* x, int64_t k, float* out) {
  float amax = 0;
  for (int64_t i = 0; i < k; ++i) amax = std::max(amax, std::fabs(x[i]));
  const int shift = shift_for(amax);
  const float factor = std::ldexp(1.0f, shift);
  for (int64_t i = 0; i < k; ++i) out[i] = x[i] * factor;
  return std::ldexp(1.0f, kE4m3Shift - shift);
}

struct Rows {
  MatrixView a;
  const float* units;  // what multiplies a row's sums; null: 1
};

Rows prepare_rows(const GemmArgs& args, Stream stream) {
  const GemmDesc& d = args.desc;
  const MatrixView a = rounded_activations(args, stream);
  if (d.weight != WeightFormat::kF8) return {a, nullptr};
  const MatrixView scaled{args.workspace, DType::kF32, d.m, d.k, d.k};  // may be a itself
  float* const units = static_cast<float*>(args.workspace) + d.m * d.k;
  for (int64_t i = 0; i < d.m; ++i) {
    units[i] = scale_row(a.row<const float>(i), d.k, scaled.row<float>(i));
  }
  return {scaled, units};
}

void run(const GemmArgs& args, const RowLoops& loops, Stream stream) {
  const GemmDesc& d = args.desc;
  const PreparedWeight& w = *args.b;
  const Rows rows_of_a = prepare_rows(args, stream);
  const MatrixView& a = rows_of_a.a;
  const int64_t stride = row_bytes(d.weight, d.k);
  stream.pool->parallel_for(d.n, kRowBlockRows, [&](int64_t begin, int64_t end) {
    float sums[kMaxTokens * kRowBlockRows];
    for (int64_t row = begin; row < end; row += kRowBlockRows) {
      const int rows = static_cast<int>(std::min<int64_t>(kRowBlockRows, end - row));
      float alpha[kRowBlockRows];
      for (int r = 0; r < rows; ++r) {
        alpha[r] = w.row_alpha != nullptr ? w.row_alpha[row + r] : w.alpha(row + r);
      }
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
        for (int t = 0; t < tokens; ++t) {
          const float unit = rows_of_a.units != nullptr ? rows_of_a.units[first + t] : 1.0f;
          const float* const sum = sums + t * kRowBlockRows;
          float* const out = args.d.row<float>(first + t) + row;
          const float* const c = d.has_c ? args.c.row<const float>(first + t) + row : nullptr;
          for (int r = 0; r < rows; ++r) {
            // The unit first: alpha times it might overflow.
            out[r] = sum[r] * unit * alpha[r] + (c != nullptr ? c[r] : 0.0f);
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
  if (d.has_bias || d.silu_mul) return Support::no("no bias and no silu_mul");
  if (d.k % 16 != 0) return Support::no("k must be a multiple of 16, found {}", d.k);
  return Support::yes();
}

size_t workspace_bytes(const GemmDesc& d, const KernelConfig&, const DeviceInfo&) {
  if (d.weight != WeightFormat::kF8) return rounded_activation_bytes(d);
  return static_cast<size_t>(d.m * (d.k + 1)) * sizeof(float);
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
