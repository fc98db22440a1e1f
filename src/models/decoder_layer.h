// What the layers of Llama and its descendants have in common: their weights, the buffers of one
// pass through them, and the steps that an architecture's forward is written with.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/anonymous_memory.h"
#include "models/kv_cache.h"
#include "models/linear.h"
#include "models/rope_table.h"
#include "models/weight_loader.h"
#include "nibble/device.h"
#include "ops/impl.h"

namespace nibble {

struct DecoderLayer {
  std::vector<float> input_norm;      // [hidden]
  Linear qkv;                         // hidden -> q | k | v
  std::vector<float> q_norm, k_norm;  // [head_dim]; empty: none
  Linear o;                           // q_size -> hidden, accumulating
  std::vector<float> post_norm;       // [hidden]
  Linear gate_up;                     // hidden -> gate | up
  Linear down;                        // intermediate -> hidden, accumulating
};

// The weights under the names that Hugging Face gave Llama's; q_norm and k_norm are left empty.
DecoderLayer load_decoder_layer(const WeightLoader& loader, const std::string& prefix);

// Activations of up to max_rows tokens on their way through the layers, fp32.
class DecoderPass {
 public:
  DecoderPass(const ModelConfig& config, const Device& device, int64_t context, int64_t max_rows);

  // Sets the pass up for `rows` tokens behind `past` others, of which the last `needed` go on after
  // the last layer's attention: the rest has been for their keys and values.
  void begin(int64_t rows, int64_t past, int64_t needed);

  MatrixView x() const { return view(x_, config_.hidden_size); }  // the residual stream

  // The steps of a layer, in the order that most architectures take them.
  void normalize(const std::vector<float>& weight);       // h = norm(x)
  void project_qkv(const Linear& qkv);                    // q | k | v = h
  void normalize_heads(const std::vector<float>& q_norm,  // q, k: each head by itself
                       const std::vector<float>& k_norm);
  void rotate();                                                 // q, k by their positions
  void attend(int64_t layer);                                    // stores k and v; q = attention
  void project_attention(const Linear& o);                       // x += o(q)
  void feed_forward(const Linear& gate_up, const Linear& down);  // x += down(silu(gate) * up)

  // y = norm(x[first .. first + y.rows)), of all rows that the pass began with
  void normalize_rows(const std::vector<float>& weight, int64_t first, const MatrixView& y) const;

 private:
  MatrixView view(float* data, int64_t cols) const {
    return {data + first_ * cols, DType::kF32, rows_, cols, cols};
  }
  MatrixView columns(int64_t first, int64_t count) const;  // of qkv
  void normalize_each(const std::vector<float>& weight, int64_t first, int64_t heads) const;

  ModelConfig config_;
  Device device_;
  RopeTable rope_;
  KvCache cache_;
  AnonymousMemory memory_;
  std::vector<int32_t> positions_;
  float* x_ = nullptr;
  float* h_ = nullptr;
  float* qkv_ = nullptr;
  float* gate_up_ = nullptr;
  float* product_ = nullptr;
  int64_t first_ = 0;  // of the rows that are still on their way
  int64_t rows_ = 0;
  int64_t past_ = 0;
  int64_t needed_ = 0;
};

}  // namespace nibble
