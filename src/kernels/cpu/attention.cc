#include "kernels/cpu/attention.h"

#include <algorithm>
#include <cmath>

#include "base/thread_pool.h"
#include "kernels/cpu/support.h"

namespace nibble::cpu {
namespace {

constexpr int kLanes = 8;
// Keys whose scores are held at a time; the softmax is rescaled from one tile to the next, so that
// no buffer grows with the context.
constexpr int kTileKeys = 64;
constexpr int64_t kMaxHeadDim = 256;

float dot(const float* a, const float* b, int64_t n) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) lanes[l] += a[i + l] * b[i + l];
  }
  for (; i < n; ++i) lanes[0] += a[i] * b[i];
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
         ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

// One head of one row: softmax(q K^T) V over the first `visible` keys.
void attend(const float* q, const float* k, const float* v, int64_t visible, int64_t head_dim,
            float scale, float* out) {
  float sum[kMaxHeadDim] = {};
  float total = 0;
  float largest = -INFINITY;
  for (int64_t t0 = 0; t0 < visible; t0 += kTileKeys) {
    const int64_t count = std::min<int64_t>(kTileKeys, visible - t0);
    float score[kTileKeys];
    float tile_largest = largest;
    for (int64_t t = 0; t < count; ++t) {
      score[t] = dot(q, k + (t0 + t) * head_dim, head_dim) * scale;
      tile_largest = std::max(tile_largest, score[t]);
    }
    const float rescale = std::exp(largest - tile_largest);
    largest = tile_largest;
    total *= rescale;
    for (int64_t i = 0; i < head_dim; ++i) sum[i] *= rescale;
    for (int64_t t = 0; t < count; ++t) {
      const float p = std::exp(score[t] - largest);
      total += p;
      const float* value = v + (t0 + t) * head_dim;
      for (int64_t i = 0; i < head_dim; ++i) sum[i] += p * value[i];
    }
  }
  for (int64_t i = 0; i < head_dim; ++i) out[i] = sum[i] / total;
}

void launch(const AttentionArgs& args, const KernelConfig&, Stream stream) {
  const AttentionDesc& d = args.desc;
  const int64_t group = d.heads / d.kv_heads;
  // Heads outside rows: a key/value plane stays in the cache while its rows go by.
  stream.pool->parallel_for(d.heads * d.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t head = unit / d.rows;
      const int64_t row = unit % d.rows;
      const int64_t plane = head / group * args.kv_head_stride;
      attend(args.q.row<const float>(row) + head * d.head_dim,
             static_cast<const float*>(args.k) + plane, static_cast<const float*>(args.v) + plane,
             d.kv_len - d.rows + row + 1, d.head_dim, args.scale,
             args.out.row<float>(row) + head * d.head_dim);
    }
  });
}

Support can_implement(const AttentionDesc& d, const DeviceInfo& device) {
  if (d.kv_type != DType::kF32) {
    return Support::no("keys and values must be F32, found {}", to_string(d.kv_type));
  }
  if (d.head_dim > kMaxHeadDim) {
    return Support::no("head_dim must be at most {}, found {}", kMaxHeadDim, d.head_dim);
  }
  return fp32_on_cpu(d, device);
}

}  // namespace

const AttentionImpl kPortableAttention = {
    .name = "cpu_portable_attention", .can_implement = can_implement, .launch = launch};

}  // namespace nibble::cpu
