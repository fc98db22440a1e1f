// Small bf16 model folders with random weights.
#pragma once

#include <fmt/format.h>

#include <random>
#include <set>
#include <string>

#include "formats/float16.h"
#include "tests/checkpoint/model_folder.h"

namespace nibble::test {

class TinyModel {
 public:
  explicit TinyModel(int layers = 2) {
    add("model.embed_tokens.weight", 40, 64);
    for (int i = 0; i < layers; ++i) {
      const std::string p = fmt::format("model.layers.{}.", i);
      add(p + "self_attn.q_proj.weight", 64, 64, 0.5f);
      add(p + "self_attn.k_proj.weight", 32, 64, 0.1f);
      add(p + "self_attn.v_proj.weight", 32, 64);
      add(p + "self_attn.o_proj.weight", 64, 64);
      add(p + "mlp.gate_proj.weight", 96, 64);
      add(p + "mlp.up_proj.weight", 96, 64, 0.3f);
      add(p + "mlp.down_proj.weight", 64, 96);
    }
  }
  TinyModel& add(const std::string& name, int64_t n, int64_t k, float deviation = 0.05f) {
    std::normal_distribution<float> normal(0.0f, deviation);
    std::string bytes;
    for (int64_t i = 0; i < n * k; ++i) {
      const uint16_t v = float_to_bf16(normal(random_));
      bytes += static_cast<char>(v & 0xFF);
      bytes += static_cast<char>(v >> 8);
    }
    return add_raw(name, "BF16", fmt::format("[{},{}]", n, k), bytes);
  }
  TinyModel& add_raw(const std::string& name, const std::string& dtype, const std::string& shape,
                     const std::string& bytes) {
    tensors_.add(name, dtype, shape, bytes);
    return *this;
  }
  void write(const std::filesystem::path& dir) const {
    std::filesystem::create_directory(dir);
    write_file(dir / "model.safetensors", tensors_.text());
    write_file(dir / "config.json", R"({"model_type": "llama"})");
    write_file(dir / "tokenizer.json", "{}");
  }

 private:
  std::mt19937 random_{1};
  SafetensorsText tensors_;
};

inline std::set<std::string> names_in(const std::filesystem::path& dir) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(dir)) {
    names.insert(entry.path().filename().string());
  }
  return names;
}

}  // namespace nibble::test
