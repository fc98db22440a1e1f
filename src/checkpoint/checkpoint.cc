#include "checkpoint/checkpoint.h"

#include <algorithm>
#include <optional>

#include "base/check.h"
#include "checkpoint/config.h"
#include "checkpoint/linear.h"
#include "checkpoint/shards.h"
#include "checkpoint/strict_json.h"

namespace nibble {

struct Checkpoint::State {
  std::filesystem::path dir;
  std::string config_json;
  QuantConfig config;
  TensorFiles files;

  const StoredTensor& tensor(std::string_view name) const {
    const StoredTensor* tensor = files.find(name);
    NIBBLE_CHECK(tensor, ErrorCode::kCheckpoint, "{}: tensor {} is missing", dir.string(), name);
    return *tensor;
  }

  WeightSource source(std::string_view module) const {
    NIBBLE_CHECK(files.find(fmt::format("{}.weight", module)) ||
                     files.find(fmt::format("{}.weight_packed", module)),
                 ErrorCode::kCheckpoint, "{}: tensor {}.weight is missing", dir.string(), module);
    return {files, config};
  }
};

Checkpoint Checkpoint::open(const std::filesystem::path& dir) {
  std::error_code error;
  NIBBLE_CHECK(std::filesystem::is_directory(dir, error), ErrorCode::kIo,
               "{}: expected a model folder, found {}", dir.string(),
               error ? error.message() : "another kind of file");
  std::string config_json = read_text_file(dir / "config.json");
  std::string hf_quant_config;
  if (std::filesystem::exists(dir / "hf_quant_config.json", error)) {
    hf_quant_config = read_text_file(dir / "hf_quant_config.json");
    NIBBLE_CHECK(!hf_quant_config.empty(), ErrorCode::kCheckpoint,
                 "{}/hf_quant_config.json: an empty file", dir.string());
  }
  QuantConfig config = QuantConfig::parse(config_json, hf_quant_config, dir.string());
  return Checkpoint(std::make_shared<const State>(
      State{dir, std::move(config_json), std::move(config), TensorFiles(dir)}));
}

const std::filesystem::path& Checkpoint::dir() const { return state_->dir; }
const std::string& Checkpoint::config_json() const { return state_->config_json; }
const QuantConfig& Checkpoint::quant_config() const { return state_->config; }

bool Checkpoint::has_tensor(std::string_view name) const {
  return state_->files.find(name) != nullptr;
}

bool Checkpoint::contains(std::string_view module) const {
  return has_tensor(fmt::format("{}.weight", module)) ||
         has_tensor(fmt::format("{}.weight_packed", module));
}

WeightTensor Checkpoint::linear(std::string_view module) const {
  return read_linear(state_->source(module), module, std::nullopt, state_);
}

WeightTensor Checkpoint::expert(std::string_view module, int64_t e) const {
  return read_linear(state_->source(module), module, e, state_);
}

std::vector<float> Checkpoint::vector(std::string_view name) const {
  return widen(state_->tensor(name));
}

std::span<const uint8_t> Checkpoint::bytes(std::string_view name) const {
  return state_->tensor(name).data;
}

std::vector<TensorSummary> Checkpoint::tensors() const {
  std::vector<TensorSummary> result;
  for (const StoredTensor& t : state_->files.all()) {
    result.push_back({t.name, t.dtype, t.shape, static_cast<int64_t>(t.data.size()),
                      t.file->path().filename().string()});
  }
  return result;
}

std::vector<ModuleSummary> Checkpoint::modules() const {
  std::vector<ModuleSummary> result;
  for (const StoredTensor& t : state_->files.all()) {
    const std::string_view name = t.name;
    const size_t dot = name.rfind('.');
    if (dot == name.npos) continue;
    const std::string_view suffix = name.substr(dot + 1);
    if ((suffix != "weight" && suffix != "weight_packed") ||
        (t.shape.size() != 2 && t.shape.size() != 3)) {
      continue;
    }
    const std::string_view module = name.substr(0, dot);
    const StoredWeight stored = find_weight(state_->source(module), module);
    result.push_back({std::string(module), stored.format, stored.experts(), stored.n(), stored.k(),
                      0, stored.scheme ? stored.scheme->name : ""});
    // Among names in order, those with the prefix "module." stand together.
    const std::string prefix = fmt::format("{}.", module);
    const auto& all = state_->files.all();
    for (auto it =
             std::lower_bound(all.begin(), all.end(), prefix,
                              [](const StoredTensor&a, const std::string&b) { return a.name < b; });
         it != all.end() && it->name.starts_with(prefix); ++it) {
      if (it->name.find('.', prefix.size()) == std::string::npos) {
        result.back().bytes += static_cast<int64_t>(it->data.size());
      }
    }
  }
  return result;
}

void Checkpoint::release(const WeightTensor& weight) const {
  const auto n = static_cast<size_t>(weight.n);
  state_->files.release(
      {weight.codes, n * static_cast<size_t>(row_bytes(weight.format, weight.k))});
  if (weight.scales != nullptr) {
    state_->files.release(
        {weight.scales, n * static_cast<size_t>(weight.k / block_size(weight.format))});
  }
}

void Checkpoint::release(std::string_view name) const {
  state_->files.release(state_->tensor(name).data);
}

}  // namespace nibble
