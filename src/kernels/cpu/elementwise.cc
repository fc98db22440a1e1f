// Ops that touch each activation once or twice. They are split over rows only: with one row a
// hand-off to another thread costs more than the work.
#include "kernels/cpu/elementwise.h"

#include <cmath>

#include "base/thread_pool.h"
#include "kernels/cpu/support.h"

namespace nibble::cpu {
namespace {

void rms_norm(const RmsNormArgs& args, const KernelConfig&, Stream stream) {
  const int64_t cols = args.desc.cols;
  stream.pool->parallel_for(args.desc.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* x = args.x.row<const float>(i);
      float* y = args.y.row<float>(i);
      float lanes[8] = {};
      int64_t j = 0;
      for (; j + 8 <= cols; j += 8) {
        for (int l = 0; l < 8; ++l) lanes[l] += x[j + l] * x[j + l];
      }
      for (; j < cols; ++j) lanes[0] += x[j] * x[j];
      float sum = 0;
      for (const float lane : lanes) sum += lane;
      const float factor = 1.0f / std::sqrt(sum / static_cast<float>(cols) + args.eps);
      for (j = 0; j < cols; ++j) y[j] = x[j] * factor * args.weight[j];
    }
  });
}

void rope(const RopeArgs& args, const KernelConfig&, Stream stream) {
  const int64_t dim = args.desc.head_dim;
  const int64_t half = dim / 2;
  stream.pool->parallel_for(args.desc.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t i = 0; i < half; ++i) {
        const float angle = static_cast<float>(args.positions[row]) * args.inv_freq[i];
        const float cos = std::cos(angle) * args.attention_factor;
        const float sin = std::sin(angle) * args.attention_factor;
        for (float* x = args.x.row<float>(row) + i;
             x < args.x.row<float>(row) + args.desc.heads * dim; x += dim) {
          const float a = x[0];
          const float b = x[half];
          x[0] = a * cos - b * sin;
          x[half] = b * cos + a * sin;
        }
      }
    }
  });
}

void silu_mul(const SiluMulArgs& args, const KernelConfig&, Stream stream) {
  const int64_t cols = args.desc.cols;
  stream.pool->parallel_for(args.desc.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* gate = args.x.row<const float>(i);
      const float* up = gate + cols;
      float* y = args.y.row<float>(i);
      for (int64_t j = 0; j < cols; ++j) y[j] = gate[j] / (1.0f + std::exp(-gate[j])) * up[j];
    }
  });
}

void embedding(const EmbeddingArgs& args, const KernelConfig&, Stream stream) {
  stream.pool->parallel_for(args.desc.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float* y = args.y.row<float>(i);
      args.table->decode_row(*args.table, args.tokens[i], y);
      const float alpha = args.table->alpha(args.tokens[i]);
      if (alpha == 1.0f) continue;
      for (int64_t j = 0; j < args.desc.cols; ++j) y[j] *= alpha;
    }
  });
}

}  // namespace

const RmsNormImpl kPortableRmsNorm = {
    .name = "cpu_portable_rms_norm", .can_implement = fp32_on_cpu<RmsNormDesc>, .launch = rms_norm};
const RopeImpl kPortableRope = {
    .name = "cpu_portable_rope", .can_implement = fp32_on_cpu<RopeDesc>, .launch = rope};
const SiluMulImpl kPortableSiluMul = {
    .name = "cpu_portable_silu_mul", .can_implement = fp32_on_cpu<SiluMulDesc>, .launch = silu_mul};
const EmbeddingImpl kPortableEmbedding = {.name = "cpu_portable_embedding",
                                          .can_implement = fp32_on_cpu<EmbeddingDesc>,
                                          .launch = embedding};

}  // namespace nibble::cpu
