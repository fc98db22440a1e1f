#include "kernels/cpu/vector_ops.h"

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/cpu/sampling.h"
#include "kernels/cpu/support.h"
#include "kernels/cpu/vector_loops.h"

namespace nibble::cpu {
namespace {

constexpr int64_t kMaxHeadDim = 512;

template <const VectorLoops& kLoops>
void rms_norm(const RmsNormArgs& args, const KernelConfig&, Stream stream) {
  stream.pool->parallel_for(args.desc.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      kLoops.rms_norm(args.x.row<const float>(i), args.weight, args.desc.cols, args.eps,
                      args.y.row<float>(i));
    }
  });
}

template <const VectorLoops& kLoops>
void rope(const RopeArgs& args, const KernelConfig&, Stream stream) {
  const int64_t half = args.desc.head_dim / 2;
  stream.pool->parallel_for(args.desc.rows, 1, [&](int64_t begin, int64_t end) {
    float cos[kMaxHeadDim / 2];
    float sin[kMaxHeadDim / 2];
    for (int64_t row = begin; row < end; ++row) {
      kLoops.rope_factors(static_cast<float>(args.positions[row]), args.inv_freq, half,
                          args.attention_factor, cos, sin);
      float* const x = args.x.row<float>(row);
      for (int64_t head = 0; head < args.desc.heads; ++head) {
        kLoops.rotate(x + head * 2 * half, half, cos, sin);
      }
    }
  });
}

template <const VectorLoops& kLoops>
void silu_mul(const SiluMulArgs& args, const KernelConfig&, Stream stream) {
  const int64_t cols = args.desc.cols;
  stream.pool->parallel_for(args.desc.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* gate = args.x.row<const float>(i);
      kLoops.silu_mul(gate, gate + cols, cols, args.y.row<float>(i));
    }
  });
}

// keys [count, head_dim] -> [head_dim][kAttentionKeys]
void transpose(const float* keys, int64_t count, int64_t head_dim, float* out) {
  constexpr int64_t kStep = 4;  // every x86-64 has these vectors
  int64_t t = 0;
  for (; t + kStep <= count; t += kStep) {
    const float* const from = keys + t * head_dim;
    int64_t d = 0;
    for (; d + kStep <= head_dim; d += kStep) {
      __m128 x[kStep];
      for (int i = 0; i < kStep; ++i) x[i] = _mm_loadu_ps(from + i * head_dim + d);
      _MM_TRANSPOSE4_PS(x[0], x[1], x[2], x[3]);
      for (int i = 0; i < kStep; ++i) _mm_storeu_ps(out + (d + i) * kAttentionKeys + t, x[i]);
    }
    for (; d < head_dim; ++d) {
      for (int i = 0; i < kStep; ++i) out[d * kAttentionKeys + t + i] = from[i * head_dim + d];
    }
  }
  for (; t < count; ++t) {
    for (int64_t d = 0; d < head_dim; ++d) out[d * kAttentionKeys + t] = keys[t * head_dim + d];
  }
}

// Queries that share transposed keys: enough that transposing costs little, few enough that their
// sums stay in the second-level cache.
constexpr int64_t kSharingQueries = 96;
// From this many on transposing pays.
constexpr int64_t kTransposeQueries = 12;

// Work space of one thread; grows to the model's size once.
struct AttentionScratch {
  std::vector<float> kt, sum, largest, total;
};

// Rows [first, first + rows) of all query heads that read one key/value head.
void attend_block(const AttentionArgs& args, const VectorLoops& loops, int64_t kv_head,
                  int64_t first, int64_t rows, AttentionScratch& scratch) {
  const AttentionDesc& d = args.desc;
  const int64_t group = d.heads / d.kv_heads;
  const int64_t past = d.kv_len - d.rows;
  const float* const k = static_cast<const float*>(args.k) + kv_head * args.kv_head_stride;
  const float* const v = static_cast<const float*>(args.v) + kv_head * args.kv_head_stride;
  const bool transposed = rows * group >= kTransposeQueries;
  scratch.kt.resize(transposed ? d.head_dim * kAttentionKeys : 0);
  scratch.sum.assign(group * rows * d.head_dim, 0.0f);
  scratch.largest.assign(group * rows, -INFINITY);
  scratch.total.assign(group * rows, 0.0f);
  for (int64_t key = 0; key < past + first + rows; key += kAttentionKeys) {
    const int64_t keys = std::min<int64_t>(kAttentionKeys, past + first + rows - key);
    const float* const tile = k + key * d.head_dim;
    if (transposed) transpose(tile, keys, d.head_dim, scratch.kt.data());
    // The heads of one token see the same keys and share their loads as rows do.
    const int64_t heads = rows == 1 ? std::min<int64_t>(kAttentionRows, group) : 1;
    for (int64_t g = 0; g < group; g += heads) {
      for (int64_t r = 0; r < rows; r += kAttentionRows) {
        const int64_t count =
            rows == 1 ? std::min(heads, group - g) : std::min<int64_t>(kAttentionRows, rows - r);
        const int64_t visible = past + first + r + 1 - key;  // of this tile, to row r
        if (visible + count - 1 <= 0) continue;
        const int64_t query = g * rows + r;
        loops.attend({.q = args.q.row<const float>(first + r) + (kv_head * group + g) * d.head_dim,
                      .q_stride = rows == 1 ? d.head_dim : args.q.stride,
                      .rows = static_cast<int>(count),
                      .k = tile,
                      .kt = transposed ? scratch.kt.data() : nullptr,
                      .v = v + key * d.head_dim,
                      .keys = static_cast<int>(keys),
                      .visible = visible,
                      .head_dim = d.head_dim,
                      .scale = args.scale,
                      .largest = &scratch.largest[query],
                      .total = &scratch.total[query],
                      .sum = &scratch.sum[query * d.head_dim]});
      }
    }
  }
  for (int64_t g = 0; g < group; ++g) {
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t query = g * rows + r;
      const float* sum = &scratch.sum[query * d.head_dim];
      float* out = args.out.row<float>(first + r) + (kv_head * group + g) * d.head_dim;
      for (int64_t i = 0; i < d.head_dim; ++i) out[i] = sum[i] / scratch.total[query];
    }
  }
}

// One head of the only row.
void attend_head(const AttentionArgs& args, const VectorLoops& loops, int64_t head,
                 AttentionScratch& scratch) {
  const int64_t dim = args.desc.head_dim;
  const int64_t plane = head / (args.desc.heads / args.desc.kv_heads) * args.kv_head_stride;
  AttentionArgs one = args;
  one.desc.heads = one.desc.kv_heads = 1;
  one.q.data = args.q.row<float>(0) + head * dim;
  one.out.data = args.out.row<float>(0) + head * dim;
  one.k = static_cast<const float*>(args.k) + plane;
  one.v = static_cast<const float*>(args.v) + plane;
  attend_block(one, loops, 0, 0, 1, scratch);
}

template <const VectorLoops& kLoops>
void attention(const AttentionArgs& args, const KernelConfig&, Stream stream) {
  const AttentionDesc& d = args.desc;
  const int64_t group = d.heads / d.kv_heads;
  const int64_t block =
      std::max<int64_t>(1, kSharingQueries / group / kAttentionRows) * kAttentionRows;
  const int64_t blocks = (d.rows + block - 1) / block;
  // One token: its heads go one by one only where there are threads for more than their groups.
  const bool single = d.rows == 1 && d.kv_heads < stream.pool->size();
  const int64_t units = single ? d.heads : d.kv_heads * blocks;
  stream.pool->share(units, 1, [&](int, ThreadPool::Parts& parts) {
    static thread_local AttentionScratch scratch;
    int64_t unit, end;
    while (parts.next(unit, end)) {
      for (; unit < end; ++unit) {
        if (single) {
          attend_head(args, kLoops, unit, scratch);
        } else {
          const int64_t first = unit / d.kv_heads * block;
          attend_block(args, kLoops, unit % d.kv_heads, first, std::min(block, d.rows - first),
                       scratch);
        }
      }
    }
  });
}

template <const VectorLoops& kLoops>
void embedding(const EmbeddingArgs& args, const KernelConfig&, Stream stream) {
  const PreparedWeight& table = *args.table;
  stream.pool->parallel_for(args.desc.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int32_t token = args.tokens[i];
      kLoops.widen_row(table.format, table.codes + token * row_bytes(table.format, table.k),
                       table.k, table.alpha(token), args.y.row<float>(i));
    }
  });
}

template <const VectorLoops& kLoops>
void sampling(const SamplingArgs& args, const KernelConfig&, Stream) {
  draw(args, kLoops.sampling);
}

template <class Desc, bool CpuFeatures::*kFeature>
Support can(const Desc& d, const DeviceInfo& device) {
  if (!(device.cpu.*kFeature)) return Support::no("this processor lacks its instructions");
  return fp32_on_cpu(d, device);
}

template <bool CpuFeatures::*kFeature>
Support can_rotate(const RopeDesc& d, const DeviceInfo& device) {
  if (d.head_dim > kMaxHeadDim) {
    return Support::no("head_dim must be at most {}, found {}", kMaxHeadDim, d.head_dim);
  }
  return can<RopeDesc, kFeature>(d, device);
}

template <bool CpuFeatures::*kFeature>
Support can_attend(const AttentionDesc& d, const DeviceInfo& device) {
  if (d.kv_type != DType::kF32) {
    return Support::no("keys and values must be F32, found {}", to_string(d.kv_type));
  }
  return can<AttentionDesc, kFeature>(d, device);
}

template <bool CpuFeatures::*kFeature>
Support can_embed(const EmbeddingDesc& d, const DeviceInfo& device) {
  if (d.layout != WeightLayout::kCanonical || is_fp4(d.format) || d.cols % 16 != 0) {
    return Support::no(
        "reads canonical rows of a multiple of 16 values of 8 bits or more, found {} {}, {}",
        to_string(d.layout), to_string(d.format), d.cols);
  }
  return can<EmbeddingDesc, kFeature>(d, device);
}

template <bool CpuFeatures::*kFeature>
Support can_sample(const SamplingDesc&, const DeviceInfo& device) {
  if (device.kind != DeviceKind::kCpu) return Support::no("runs on a CPU only");
  return device.cpu.*kFeature ? Support::yes()
                              : Support::no("this processor lacks its instructions");
}

constexpr auto kAvx2 = &CpuFeatures::avx2;
constexpr auto kAvx512 = &CpuFeatures::avx512;

}  // namespace

const RmsNormImpl kAvx2RmsNorm = {.name = "cpu_avx2_rms_norm",
                                  .can_implement = can<RmsNormDesc, kAvx2>,
                                  .launch = rms_norm<avx2::kVectorLoops>};
const RmsNormImpl kAvx512RmsNorm = {.name = "cpu_avx512_rms_norm",
                                    .can_implement = can<RmsNormDesc, kAvx512>,
                                    .launch = rms_norm<avx512::kVectorLoops>};
const RopeImpl kAvx2Rope = {.name = "cpu_avx2_rope",
                            .can_implement = can_rotate<kAvx2>,
                            .launch = rope<avx2::kVectorLoops>};
const RopeImpl kAvx512Rope = {.name = "cpu_avx512_rope",
                              .can_implement = can_rotate<kAvx512>,
                              .launch = rope<avx512::kVectorLoops>};
const SiluMulImpl kAvx2SiluMul = {.name = "cpu_avx2_silu_mul",
                                  .can_implement = can<SiluMulDesc, kAvx2>,
                                  .launch = silu_mul<avx2::kVectorLoops>};
const SiluMulImpl kAvx512SiluMul = {.name = "cpu_avx512_silu_mul",
                                    .can_implement = can<SiluMulDesc, kAvx512>,
                                    .launch = silu_mul<avx512::kVectorLoops>};
const AttentionImpl kAvx2Attention = {.name = "cpu_avx2_attention",
                                      .can_implement = can_attend<kAvx2>,
                                      .launch = attention<avx2::kVectorLoops>};
const AttentionImpl kAvx512Attention = {.name = "cpu_avx512_attention",
                                        .can_implement = can_attend<kAvx512>,
                                        .launch = attention<avx512::kVectorLoops>};
const EmbeddingImpl kAvx2Embedding = {.name = "cpu_avx2_embedding",
                                      .can_implement = can_embed<kAvx2>,
                                      .launch = embedding<avx2::kVectorLoops>};
const EmbeddingImpl kAvx512Embedding = {.name = "cpu_avx512_embedding",
                                        .can_implement = can_embed<kAvx512>,
                                        .launch = embedding<avx512::kVectorLoops>};
const SamplingImpl kAvx2Sampling = {.name = "cpu_avx2_sampling",
                                    .can_implement = can_sample<kAvx2>,
                                    .launch = sampling<avx2::kVectorLoops>};
const SamplingImpl kAvx512Sampling = {.name = "cpu_avx512_sampling",
                                      .can_implement = can_sample<kAvx512>,
                                      .launch = sampling<avx512::kVectorLoops>};

}  // namespace nibble::cpu
