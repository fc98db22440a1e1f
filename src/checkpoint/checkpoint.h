// A model folder, opened for reading: config.json, safetensors files, quantization config.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/types.h"
#include "nibble/weight.h"

namespace nibble {

struct QuantConfig;

// One stored tensor, for `nibble inspect` and `nibble quantize`.
struct TensorSummary {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  int64_t bytes;
  std::string file;  // within the folder
};

// What the module's stored tensors are, read from their headers alone.
struct ModuleSummary {
  std::string name;     // "model.layers.0.self_attn.q_proj"
  WeightFormat format;  // of the weight
  int64_t experts;      // of a 3-D weight; 0: an ordinary matrix
  int64_t n;
  int64_t k;
  int64_t bytes;       // every tensor of the module, scales and bias included
  std::string scheme;  // the config's word, e.g. "NVFP4", "nvfp4-pack-quantized"; empty: plain
};

// Copying is cheap and safe between threads: copies share one mapping, which also lives as long as
// any WeightTensor taken from it.
class Checkpoint {
 public:
  // Reads the headers and configs of a folder, not the weights. Throws kIo where a file can't be
  // read, kCheckpoint where one is malformed, kUnsupported for an unknown quantization algorithm;
  // the message names file, tensor, expected and found.
  static Checkpoint open(const std::filesystem::path& dir);

  const std::filesystem::path& dir() const;
  const std::string& config_json() const;  // the text of config.json
  const QuantConfig& quant_config() const;

  bool has_tensor(std::string_view name) const;  // "model.layers.0.self_attn.q_proj.bias"
  bool contains(std::string_view module) const;  // has a weight, plain or quantized

  // The weight [n, k] of "model.layers.0.self_attn.q_proj" in whatever scheme it is stored, as
  // zero-copy views. Takes plain matrices too (embedding, lm_head). Throws kCheckpoint for missing
  // tensors, wrong dtypes or shapes, k not a multiple of the block, NaN or negative scales, and for
  // a module whose tensors contradict the config; kUnsupported for a weight that needs more than a
  // WeightTensor can say (pre_quant_scale, a low-rank branch).
  WeightTensor linear(std::string_view module) const;

  // Expert `e` of a module stored as one 3-D tensor [experts, n, k], as some exports keep them.
  WeightTensor expert(std::string_view module, int64_t e) const;

  // A norm's weight or a bias, widened to fp32. `name` is a full tensor name; any shape.
  std::vector<float> vector(std::string_view name) const;

  // The stored bytes of a tensor, as in the file. Valid as long as this or a copy lives.
  std::span<const uint8_t> bytes(std::string_view name) const;

  std::vector<TensorSummary> tensors() const;  // in name order
  std::vector<ModuleSummary> modules() const;  // those with a matrix weight, in name order

  // Gives back the pages of a weight or a tensor that will not be read again soon.
  void release(const WeightTensor& weight) const;
  void release(std::string_view name) const;

 private:
  struct State;
  explicit Checkpoint(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

// Stacks weights along n (q|k|v, gate|up). Copies the bytes; one segment per run of equal global
// scales, so each part keeps its own exactly. input_decode_scale is the largest of the parts'.
// Throws kInvalidArgument, naming the parts, where formats or k differ.
WeightTensor concat_rows(std::span<const WeightTensor> parts);

}  // namespace nibble
