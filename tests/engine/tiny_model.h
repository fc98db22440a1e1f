// A random Llama of a few kilobytes, written to a temporary folder.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

namespace nibble {

class TinyModel {
 public:
  static constexpr int kVocab = 64;
  static constexpr int kContext = 48;

  explicit TinyModel(const std::string& name, uint32_t seed = 1, int vocab = kVocab)
      : dir_(std::filesystem::path(testing::TempDir()) /
             (name + "-" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(dir_);
    constexpr int kHidden = 32;
    constexpr int kInner = 48;
    nlohmann::json config = {{"architectures", {"LlamaForCausalLM"}},
                             {"hidden_size", kHidden},
                             {"intermediate_size", kInner},
                             {"num_hidden_layers", 1},
                             {"num_attention_heads", 2},
                             {"num_key_value_heads", 1},
                             {"vocab_size", vocab},
                             {"max_position_embeddings", kContext},
                             {"rms_norm_eps", 1e-5},
                             {"tie_word_embeddings", true},
                             {"eos_token_id", 1}};
    std::ofstream(dir_ / "config.json") << config;
    random_.seed(seed);
    add("model.embed_tokens", vocab, kHidden);
    add("model.layers.0.self_attn.q_proj", kHidden, kHidden);
    add("model.layers.0.self_attn.k_proj", kHidden / 2, kHidden);
    add("model.layers.0.self_attn.v_proj", kHidden / 2, kHidden);
    add("model.layers.0.self_attn.o_proj", kHidden, kHidden);
    add("model.layers.0.mlp.gate_proj", kInner, kHidden);
    add("model.layers.0.mlp.up_proj", kInner, kHidden);
    add("model.layers.0.mlp.down_proj", kHidden, kInner);
    add("model.layers.0.input_layernorm", kHidden);
    add("model.layers.0.post_attention_layernorm", kHidden);
    add("model.norm", kHidden);
    write();
  }
  ~TinyModel() { std::filesystem::remove_all(dir_); }
  TinyModel(const TinyModel&) = delete;
  TinyModel& operator=(const TinyModel&) = delete;

  const std::filesystem::path& dir() const { return dir_; }

 private:
  // A matrix of rows x cols, or a norm of `rows` ones.
  void add(const std::string& module, int rows, int cols = 0) {
    std::normal_distribution<float> normal(0.0f, 0.5f);
    const size_t begin = data_.size();
    for (int i = 0; i < rows * (cols > 0 ? cols : 1); ++i) {
      const float value = cols > 0 ? normal(random_) : 1.0f;
      data_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    }
    const nlohmann::json shape =
        cols > 0 ? nlohmann::json{rows, cols} : nlohmann::json::array({rows});
    header_[module + ".weight"] = {
        {"dtype", "F32"}, {"shape", shape}, {"data_offsets", {begin, data_.size()}}};
  }
  void write() const {
    const std::string header = header_.dump();
    const uint64_t size = header.size();
    std::ofstream out(dir_ / "model.safetensors", std::ios::binary);
    out.write(reinterpret_cast<const char*>(&size), sizeof(size));
    out << header << data_;
  }

  std::filesystem::path dir_;
  std::mt19937 random_;
  nlohmann::json header_;
  std::string data_;
};

}  // namespace nibble
