// What config.json says about a decoder-only transformer.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

// How positions turn into angles; the fields beside `theta` belong to the types named.
enum class RopeType : uint8_t { kDefault, kLinear, kLlama3, kYarn };

struct RopeConfig {
  RopeType type = RopeType::kDefault;
  double theta = 10000.0;
  double factor = 1.0;            // linear, llama3, yarn: of the context's stretch
  double low_freq_factor = 1.0;   // llama3
  double high_freq_factor = 4.0;  // llama3
  double beta_fast = 32.0;        // yarn: rotations in original_context above which none is scaled
  double beta_slow = 1.0;         // yarn: ... below which all are
  bool truncate = true;           // yarn: whether those borders become whole dimensions
  double attention_factor = 1.0;  // yarn: multiplies cos and sin
  int64_t original_context = 0;   // llama3, yarn: positions the model was first trained for
};

struct ModelConfig {
  std::string architecture;  // "LlamaForCausalLM"
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab_size = 0;
  int64_t context_length = 0;  // max_position_embeddings, or what YaRN stretches it to
  float rms_norm_eps = 0.0f;
  bool tied_embeddings = false;
  bool attention_bias = false;
  bool mlp_bias = false;
  RopeConfig rope;
  std::vector<int32_t> eos_ids;

  int64_t q_size() const { return num_heads * head_dim; }
  int64_t kv_size() const { return num_kv_heads * head_dim; }
};

// Reads the text of a config.json; `file` is for messages. Throws kCheckpoint, naming the field,
// what was expected and what was found, and kUnsupported for a rope type, activation function or
// attention window that no model here computes.
ModelConfig parse_model_config(std::string_view json, const std::filesystem::path& file);

// The eos_token_id of a generation_config.json's text; empty where it has none.
std::vector<int32_t> parse_generation_eos(std::string_view json, const std::filesystem::path& file);

}  // namespace nibble
