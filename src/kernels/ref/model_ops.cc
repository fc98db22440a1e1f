// ops/model_ops.h word for word: one element after the other, sums in double.
#include "kernels/ref/model_ops.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/ref/element.h"

namespace nibble::ref {
namespace {

void rms_norm(const RmsNormArgs& args, const KernelConfig&, Stream) {
  for (int64_t i = 0; i < args.desc.rows; ++i) {
    double sum = 0;
    for (int64_t j = 0; j < args.desc.cols; ++j) {
      const double x = load(args.x, i, j);
      sum += x * x;
    }
    const double factor =
        1.0 / std::sqrt(sum / static_cast<double>(args.desc.cols) + static_cast<double>(args.eps));
    for (int64_t j = 0; j < args.desc.cols; ++j) {
      store(args.y, i, j, load(args.x, i, j) * factor * args.weight[j]);
    }
  }
}

void rope(const RopeArgs& args, const KernelConfig&, Stream) {
  const int64_t half = args.desc.head_dim / 2;
  for (int64_t row = 0; row < args.desc.rows; ++row) {
    for (int64_t head = 0; head < args.desc.heads; ++head) {
      for (int64_t i = 0; i < half; ++i) {
        // The angle is an fp32 product, as in the models' own code: at position 8000 the difference
        // from an exact product is 5e-4, far more than the kernels' rounding.
        const double angle = static_cast<float>(args.positions[row]) * args.inv_freq[i];
        const double cos = std::cos(angle) * args.attention_factor;
        const double sin = std::sin(angle) * args.attention_factor;
        const int64_t at = head * args.desc.head_dim + i;
        const double a = load(args.x, row, at);
        const double b = load(args.x, row, at + half);
        store(args.x, row, at, a * cos - b * sin);
        store(args.x, row, at + half, b * cos + a * sin);
      }
    }
  }
}

void attention(const AttentionArgs& args, const KernelConfig&, Stream stream) {
  const AttentionDesc& d = args.desc;
  // One unit of work is one head of one row: what it reads of q is what it writes of out, so that
  // out may be q.
  stream.pool->parallel_for(d.rows * d.heads, 1, [&](int64_t begin, int64_t end) {
    std::vector<double> weight(d.kv_len);
    std::vector<double> sum(d.head_dim);
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t row = unit / d.heads;
      const int64_t head = unit % d.heads;
      const int64_t plane = head / (d.heads / d.kv_heads) * args.kv_head_stride;
      const auto kv = [&](const void* base) {
        return MatrixView{static_cast<uint8_t*>(const_cast<void*>(base)) +
                              plane * static_cast<int64_t>(size_of(d.kv_type)),
                          d.kv_type, d.kv_len, d.head_dim, d.head_dim};
      };
      const MatrixView k = kv(args.k);
      const MatrixView v = kv(args.v);
      const int64_t visible = d.kv_len - d.rows + row + 1;
      double largest = -INFINITY;
      for (int64_t t = 0; t < visible; ++t) {
        double dot = 0;
        for (int64_t i = 0; i < d.head_dim; ++i) {
          dot += load(args.q, row, head * d.head_dim + i) * load(k, t, i);
        }
        weight[t] = dot * args.scale;
        largest = std::max(largest, weight[t]);
      }
      double total = 0;
      std::fill(sum.begin(), sum.end(), 0.0);
      for (int64_t t = 0; t < visible; ++t) {
        const double p = std::exp(weight[t] - largest);
        total += p;
        for (int64_t i = 0; i < d.head_dim; ++i) sum[i] += p * load(v, t, i);
      }
      for (int64_t i = 0; i < d.head_dim; ++i) {
        store(args.out, row, head * d.head_dim + i, sum[i] / total);
      }
    }
  });
}

void silu_mul(const SiluMulArgs& args, const KernelConfig&, Stream) {
  for (int64_t i = 0; i < args.desc.rows; ++i) {
    for (int64_t j = 0; j < args.desc.cols; ++j) {
      const double gate = load(args.x, i, j);
      store(args.y, i, j, gate / (1.0 + std::exp(-gate)) * load(args.x, i, j + args.desc.cols));
    }
  }
}

void embedding(const EmbeddingArgs& args, const KernelConfig&, Stream) {
  std::vector<float> row(args.desc.cols);
  for (int64_t i = 0; i < args.desc.rows; ++i) {
    const int64_t token = args.tokens[i];
    args.table->decode_row(*args.table, token, row.data());
    const float alpha = args.table->alpha(token);
    for (int64_t j = 0; j < args.desc.cols; ++j) store(args.y, i, j, row[j] * alpha);
  }
}

void sampling(const SamplingArgs& args, const KernelConfig&, Stream) {
  const SamplingDesc& d = args.desc;
  std::vector<int32_t> order(d.vocab);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return args.logits[a] > args.logits[b]; });
  *args.token = order[0];
  if (d.temperature == 0) return;

  if (d.top_k > 0 && d.top_k < d.vocab) order.resize(d.top_k);
  std::vector<double> p;
  for (const int32_t i : order) {
    p.push_back(
        std::exp((static_cast<double>(args.logits[i]) - args.logits[order[0]]) / d.temperature));
  }
  const double total = std::accumulate(p.begin(), p.end(), 0.0);
  double kept = 0;
  size_t count = 0;
  while (count < p.size() && (count == 0 || kept < static_cast<double>(d.top_p) * total)) {
    if (p[count] < static_cast<double>(d.min_p) * p[0]) break;
    kept += p[count++];
  }
  double target = args.uniform * kept;
  for (size_t i = 0; i < count; ++i) {
    *args.token = order[i];
    target -= p[i];
    if (target < 0) return;
  }
}

template <class Desc>
Support any_activations(const Desc& desc, const DeviceInfo& device) {
  return on_cpu(device, desc.type);
}

Support can_attend(const AttentionDesc& desc, const DeviceInfo& device) {
  if (const Support s = takes_activations(desc.kv_type); !s) return s;
  return on_cpu(device, desc.type);
}

Support can_sample(const SamplingDesc&, const DeviceInfo& device) { return on_cpu(device); }

}  // namespace

const RmsNormImpl kRmsNorm = {
    .name = "ref_rms_norm", .can_implement = any_activations<RmsNormDesc>, .launch = rms_norm};
const RopeImpl kRope = {
    .name = "ref_rope", .can_implement = any_activations<RopeDesc>, .launch = rope};
const AttentionImpl kAttention = {
    .name = "ref_attention", .can_implement = can_attend, .launch = attention};
const SiluMulImpl kSiluMul = {
    .name = "ref_silu_mul", .can_implement = any_activations<SiluMulDesc>, .launch = silu_mul};
const EmbeddingImpl kEmbedding = {
    .name = "ref_embedding", .can_implement = any_activations<EmbeddingDesc>, .launch = embedding};
const SamplingImpl kSampling = {
    .name = "ref_sampling", .can_implement = can_sample, .launch = sampling};

}  // namespace nibble::ref
