// The ops of a transformer's forward pass around its GEMMs. Activations are MatrixViews; sums,
// means and exponentials are taken in fp32 (the reference: in double).
#pragma once

#include <cstdint>

#include "ops/gemm.h"
#include "ops/impl.h"

namespace nibble {

// y = x / sqrt(mean(x^2) + eps) * weight, row by row. y may be x.
struct RmsNormDesc {
  int64_t rows = 0;
  int64_t cols = 0;
  DType type = DType::kF32;
};
struct RmsNormArgs {
  RmsNormDesc desc;
  MatrixView x;
  const float* weight = nullptr;  // [cols]
  float eps = 0.0f;
  MatrixView y;
};
using RmsNormImpl = OpImpl<RmsNormDesc, RmsNormArgs>;

// Rotates pairs (i, i + head_dim/2) of every head by positions[row] * inv_freq[i], in place
// (the order of Hugging Face checkpoints). x: [rows, heads * head_dim].
struct RopeDesc {
  int64_t rows = 0;
  int64_t heads = 0;
  int64_t head_dim = 0;
  DType type = DType::kF32;
};
struct RopeArgs {
  RopeDesc desc;
  MatrixView x;
  const int32_t* positions = nullptr;  // [rows]
  const float* inv_freq = nullptr;     // [head_dim / 2]
  float attention_factor = 1.0f;       // multiplies cos and sin (YaRN); 1 elsewhere
};
using RopeImpl = OpImpl<RopeDesc, RopeArgs>;

// Causal grouped-query attention of `rows` new tokens, the last of which stands at position
// kv_len - 1; query head h reads key/value head h / (heads / kv_heads).
// K and V: kv_heads planes of [kv_len, head_dim], `kv_head_stride` elements apart.
struct AttentionDesc {
  int64_t rows = 0;
  int64_t kv_len = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  DType type = DType::kF32;
  DType kv_type = DType::kF32;
};
struct AttentionArgs {
  AttentionDesc desc;
  MatrixView q;  // [rows, heads * head_dim]
  const void* k = nullptr;
  const void* v = nullptr;
  int64_t kv_head_stride = 0;
  float scale = 1.0f;  // of q.k before the softmax
  MatrixView out;      // [rows, heads * head_dim]; may be q
};
using AttentionImpl = OpImpl<AttentionDesc, AttentionArgs>;

// y = silu(gate) * up. x: [rows, 2 * cols], gate in the first half of each row; y: [rows, cols].
struct SiluMulDesc {
  int64_t rows = 0;
  int64_t cols = 0;
  DType type = DType::kF32;
};
struct SiluMulArgs {
  SiluMulDesc desc;
  MatrixView x;
  MatrixView y;
};
using SiluMulImpl = OpImpl<SiluMulDesc, SiluMulArgs>;

// y[i] = row tokens[i] of the (dequantized) table; y: [rows, table->k].
struct EmbeddingDesc {
  int64_t rows = 0;
  int64_t cols = 0;
  WeightFormat format = WeightFormat::kF32;
  WeightLayout layout = WeightLayout::kCanonical;
  DType type = DType::kF32;
};
struct EmbeddingArgs {
  EmbeddingDesc desc;
  const int32_t* tokens = nullptr;  // each in [0, table->n)
  const PreparedWeight* table = nullptr;
  MatrixView y;
};
using EmbeddingImpl = OpImpl<EmbeddingDesc, EmbeddingArgs>;

// Draws one token. temperature 0: the largest logit (the lowest index on ties). Otherwise, in this
// order: top_k keeps the k largest (0: all), softmax at the temperature, top_p keeps the smallest
// set of largest probabilities that reaches p, min_p drops those under min_p * the largest;
// `uniform` in [0, 1) picks from what is left, in order of probability.
struct SamplingDesc {
  int64_t vocab = 0;
  float temperature = 0.0f;
  int64_t top_k = 0;
  float top_p = 1.0f;
  float min_p = 0.0f;
};
struct SamplingArgs {
  SamplingDesc desc;
  const float* logits = nullptr;  // [vocab]
  double uniform = 0.0;
  int32_t* token = nullptr;
};
using SamplingImpl = OpImpl<SamplingDesc, SamplingArgs>;

std::string to_string(const RmsNormDesc& desc);
std::string to_string(const RopeDesc& desc);
std::string to_string(const AttentionDesc& desc);
std::string to_string(const SiluMulDesc& desc);
std::string to_string(const EmbeddingDesc& desc);
std::string to_string(const SamplingDesc& desc);

void validate(const RmsNormArgs& args);
void validate(const RopeArgs& args);
void validate(const AttentionArgs& args);
void validate(const SiluMulArgs& args);
void validate(const EmbeddingArgs& args);
void validate(const SamplingArgs& args);

}  // namespace nibble
