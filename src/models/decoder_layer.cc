#include "models/decoder_layer.h"

#include <cmath>
#include <numeric>

#include "dispatch/ops.h"

namespace nibble {

DecoderLayer load_decoder_layer(const WeightLoader& loader, const std::string& prefix) {
  const ModelConfig& config = loader.config();
  const int64_t hidden = config.hidden_size;
  const std::string attention = prefix + ".self_attn.";
  const std::string mlp = prefix + ".mlp.";
  DecoderLayer layer;
  layer.input_norm = loader.vector(prefix + ".input_layernorm.weight", hidden);
  layer.qkv = loader.linear({{attention + "q_proj", config.q_size()},
                             {attention + "k_proj", config.kv_size()},
                             {attention + "v_proj", config.kv_size()}},
                            {.k = hidden, .bias = config.attention_bias});
  layer.o = loader.linear({{attention + "o_proj", hidden}},
                          {.k = config.q_size(), .bias = config.attention_bias, .add = true});
  layer.post_norm = loader.vector(prefix + ".post_attention_layernorm.weight", hidden);
  layer.gate_up = loader.linear(
      {{mlp + "gate_proj", config.intermediate_size}, {mlp + "up_proj", config.intermediate_size}},
      {.k = hidden, .bias = config.mlp_bias});
  layer.down = loader.linear({{mlp + "down_proj", hidden}},
                             {.k = config.intermediate_size, .bias = config.mlp_bias, .add = true});
  return layer;
}

DecoderPass::DecoderPass(const ModelConfig& config, const Device& device, int64_t context,
                         int64_t max_rows)
    : config_(config),
      device_(device),
      rope_(make_rope_table(config.rope, config.head_dim)),
      cache_(config.num_layers, config.num_kv_heads, context, config.head_dim),
      positions_(static_cast<size_t>(max_rows)) {
  const int64_t widths[] = {config.hidden_size, config.hidden_size,
                            config.q_size() + 2 * config.kv_size(), 2 * config.intermediate_size,
                            config.intermediate_size};
  float** const buffers[] = {&x_, &h_, &qkv_, &gate_up_, &product_};
  // Each buffer starts on a cache line.
  constexpr int64_t kLine = 16;
  const auto padded = [&](int64_t width) { return (width * max_rows + kLine - 1) / kLine * kLine; };
  int64_t total = 0;
  for (const int64_t width : widths) total += padded(width);
  memory_ = AnonymousMemory(static_cast<size_t>(total) * sizeof(float), "activations");
  float* next = static_cast<float*>(memory_.data());
  for (size_t i = 0; i < std::size(widths); ++i) {
    *buffers[i] = next;
    next += padded(widths[i]);
  }
}

void DecoderPass::begin(int64_t rows, int64_t past, int64_t needed) {
  first_ = 0;
  rows_ = rows;
  past_ = past;
  needed_ = needed;
  std::iota(positions_.begin(), positions_.begin() + rows, static_cast<int32_t>(past));
}

MatrixView DecoderPass::columns(int64_t first, int64_t count) const {
  MatrixView all = view(qkv_, config_.q_size() + 2 * config_.kv_size());
  all.data = static_cast<float*>(all.data) + first;
  all.cols = count;
  return all;
}

void DecoderPass::normalize(const std::vector<float>& weight) {
  normalize_rows(weight, first_, view(h_, config_.hidden_size));
}

void DecoderPass::normalize_rows(const std::vector<float>& weight, int64_t first,
                                 const MatrixView& y) const {
  MatrixView x = view(x_, config_.hidden_size);
  x.data = x_ + first * config_.hidden_size;
  x.rows = y.rows;
  rms_norm({.desc = {.rows = y.rows, .cols = config_.hidden_size, .type = DType::kF32},
            .x = x,
            .weight = weight.data(),
            .eps = config_.rms_norm_eps,
            .y = y},
           device_);
}

void DecoderPass::project_qkv(const Linear& qkv) {
  qkv.run(view(h_, config_.hidden_size), columns(0, config_.q_size() + 2 * config_.kv_size()));
}

void DecoderPass::normalize_heads(const std::vector<float>& q_norm,
                                  const std::vector<float>& k_norm) {
  normalize_each(q_norm, 0, config_.num_heads);
  normalize_each(k_norm, config_.q_size(), config_.num_kv_heads);
}

// One op takes a matrix with one stride: either all heads of a row or all rows of a head.
void DecoderPass::normalize_each(const std::vector<float>& weight, int64_t first,
                                 int64_t heads) const {
  const int64_t dim = config_.head_dim;
  const MatrixView all = columns(first, heads * dim);
  const auto normalize_matrix = [&](float* data, int64_t rows, int64_t stride) {
    const MatrixView x{data, DType::kF32, rows, dim, stride};
    rms_norm({.desc = {.rows = rows, .cols = dim, .type = DType::kF32},
              .x = x,
              .weight = weight.data(),
              .eps = config_.rms_norm_eps,
              .y = x},
             device_);
  };
  if (rows_ < heads) {
    for (int64_t row = 0; row < rows_; ++row) normalize_matrix(all.row<float>(row), heads, dim);
  } else {
    for (int64_t head = 0; head < heads; ++head) {
      normalize_matrix(all.row<float>(0) + head * dim, rows_, all.stride);
    }
  }
}

void DecoderPass::rotate() {
  const int64_t heads = config_.num_heads + config_.num_kv_heads;  // q and k lie side by side
  rope({.desc = {.rows = rows_, .heads = heads, .head_dim = config_.head_dim, .type = DType::kF32},
        .x = columns(0, heads * config_.head_dim),
        .positions = positions_.data(),
        .inv_freq = rope_.inv_freq.data(),
        .attention_factor = rope_.attention_factor},
       device_);
}

void DecoderPass::attend(int64_t layer) {
  const int64_t q = config_.q_size();
  const int64_t kv = config_.kv_size();
  cache_.store(layer, past_, rows_, columns(q, kv), columns(q + kv, kv));
  if (layer + 1 == config_.num_layers) {
    first_ = rows_ - needed_;
    past_ += first_;
    rows_ = needed_;
  }
  attention({.desc = {.rows = rows_,
                      .kv_len = past_ + rows_,
                      .heads = config_.num_heads,
                      .kv_heads = config_.num_kv_heads,
                      .head_dim = config_.head_dim,
                      .type = DType::kF32,
                      .kv_type = DType::kF32},
             .q = columns(0, q),
             .k = cache_.keys(layer),
             .v = cache_.values(layer),
             .kv_head_stride = cache_.head_stride(),
             .scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim)),
             .out = columns(0, q)},
            device_);
}

void DecoderPass::project_attention(const Linear& o) { o.run(columns(0, config_.q_size()), x()); }

void DecoderPass::feed_forward(const Linear& gate_up, const Linear& down) {
  const MatrixView both = view(gate_up_, 2 * config_.intermediate_size);
  const MatrixView product = view(product_, config_.intermediate_size);
  gate_up.run(view(h_, config_.hidden_size), both);
  silu_mul({.desc = {.rows = rows_, .cols = config_.intermediate_size, .type = DType::kF32},
            .x = both,
            .y = product},
           device_);
  down.run(product, x());
}

}  // namespace nibble
