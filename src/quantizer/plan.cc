#include "quantizer/plan.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "checkpoint/convention.h"
#include "checkpoint/pattern.h"
#include "checkpoint/strict_json.h"

namespace nibble {
namespace {

// "model.layers.0.mlp.up_proj" and "...layers.0.mlp.experts.3.up_proj", not "lm_head".
bool in_decoder_layer(const std::vector<std::string_view>& path) {
  for (size_t i = 0; i + 2 < path.size(); ++i) {
    if (path[i] == "layers" && !path[i + 1].empty() &&
        path[i + 1].find_first_not_of("0123456789") == std::string_view::npos) {
      return true;
    }
  }
  return false;
}

// A router decides which experts run: tiny, and every error in it is a wrong choice.
bool is_router(std::string_view last) {
  return last == "gate" || last == "router" || last == "shared_expert_gate";
}

bool is_embedding(std::string_view last) {
  return last.find("embed") != std::string_view::npos || last == "wte" || last == "wpe";
}

bool holds_experts(const std::vector<std::string_view>& path) {
  return in_decoder_layer(path) && std::find(path.begin(), path.end(), "experts") != path.end();
}

// The name that fused projections have in common: engines run them as one GEMM with one scale.
std::string group_name(const std::string& module) {
  static const std::map<std::string_view, std::string_view> kFused = {
      {"q_proj", "qkv"},      {"k_proj", "qkv"}, {"v_proj", "qkv"}, {"gate_proj", "gate_up"},
      {"up_proj", "gate_up"}, {"w1", "gate_up"}, {"w3", "gate_up"}};
  const size_t last = module.rfind('.') + 1;
  const auto it = kFused.find(std::string_view(module).substr(last));
  return it == kFused.end() ? module : module.substr(0, last) + std::string(it->second);
}

class IgnoreList {
 public:
  explicit IgnoreList(const std::vector<std::string>& patterns) {
    for (const std::string& pattern : patterns) {
      entries_.push_back({pattern, {}, false});
      if (!pattern.starts_with("re:")) continue;
      try {
        entries_.back().regex.emplace_back(pattern.substr(3), "ignore");
      } catch (const Error& error) {
        fail(ErrorCode::kInvalidArgument, "{}", error.what());
      }
    }
  }

  bool matches(const std::string& module) {
    bool any = false;
    for (Entry& e : entries_) {
      if (e.regex.empty() ? glob_match(e.text, module) : e.regex[0].match(module)) {
        any = e.used = true;
      }
    }
    return any;
  }

  void check_all_used() const {
    for (const Entry& e : entries_) {
      NIBBLE_CHECK(e.used, ErrorCode::kInvalidArgument, "ignore pattern \"{}\" matches no module",
                   e.text);
    }
  }

 private:
  struct Entry {
    std::string text;
    std::vector<Regex> regex;  // one, or none for a glob
    bool used;
  };
  std::vector<Entry> entries_;
};

void check_blocks(const ModuleSummary& m, WeightFormat format) {
  const int64_t block = block_size(format);
  NIBBLE_CHECK(m.k % block == 0, ErrorCode::kUnsupported,
               "{}: k = {} is not a multiple of {}, the block of {}; ignore the module to keep it "
               "as it is",
               m.name, m.k, block, to_string(format));
}

// True: quantize it. False: it stays as it is.
bool is_target(const ModuleSummary& m, const QuantizeOptions& options, IgnoreList& ignore) {
  const bool plain = m.format == WeightFormat::kF32 || m.format == WeightFormat::kF16 ||
                     m.format == WeightFormat::kBF16;
  NIBBLE_CHECK(plain, ErrorCode::kUnsupported,
               "{}: is quantized already ({}); expected a checkpoint of F32, F16 or BF16 weights",
               m.name, m.scheme.empty() ? to_string(m.format) : m.scheme);
  const bool ignored = ignore.matches(m.name);  // first, so that the pattern counts as used
  const auto path = split_path(m.name);
  if (ignored || !in_decoder_layer(path) || is_router(path.back())) return false;
  if (m.experts > 0) {
    NIBBLE_CHECK(!holds_experts(path), ErrorCode::kUnsupported,
                 "{}: its {} experts are one 3-D tensor; expected a matrix for each, or an ignore "
                 "pattern for it",
                 m.name, m.experts);
    return false;  // a convolution
  }
  check_blocks(m, options.format);
  return true;
}

// The output matrix, if it is to be quantized: stored as lm_head or, tied, as the embedding.
std::optional<QuantizePlan::Weight> plan_lm_head(const Checkpoint& source,
                                                 const std::vector<ModuleSummary>& modules,
                                                 const QuantizeOptions& options) {
  const auto json = parse_strict_json(source.config_json(), source.dir().string());
  const bool tied = json.value("tie_word_embeddings", nlohmann::json()) == true;
  const bool by_default = options.lm_head == LmHead::kDefault;
  if (options.lm_head == LmHead::kKeep || (by_default && !tied)) return std::nullopt;
  const auto stored = [&](std::string_view name) {
    return std::find_if(modules.begin(), modules.end(),
                        [&](const ModuleSummary& m) { return m.name == name && m.experts == 0; });
  };
  auto module = stored("lm_head");
  const bool copied = module == modules.end();
  if (copied && tied) module = stored("model.embed_tokens");
  if (module == modules.end()) {
    NIBBLE_CHECK(by_default, ErrorCode::kUnsupported,
                 "{}: has no output matrix to quantize; expected lm_head.weight, or "
                 "tie_word_embeddings in config.json and model.embed_tokens.weight",
                 source.dir().string());
    return std::nullopt;
  }
  const auto format = options.lm_head == LmHead::kNvfp4 ? WeightFormat::kNvfp4 : WeightFormat::kF8;
  if (is_fp4(format)) check_blocks(*module, format);
  return QuantizePlan::Weight{
      "lm_head", module->name + ".weight", format, DType::kF32, module->n, module->k, copied};
}

}  // namespace

QuantizePlan plan_quantization(const Checkpoint& source, const QuantizeOptions& options) {
  IgnoreList ignore(options.ignore);
  std::map<std::string, ModuleSummary> targets;     // by the weight's tensor name
  std::set<std::string> unquantized = {"lm_head"};  // a tied one too: readers look for the name
  const bool ignores_lm_head = ignore.matches("lm_head");
  const auto modules = source.modules();
  for (const ModuleSummary& m : modules) {
    if (is_target(m, options, ignore)) {
      targets.emplace(m.name + ".weight", m);
    } else if (!is_embedding(split_path(m.name).back())) {
      unquantized.insert(m.name);
    }
  }

  NIBBLE_CHECK(!targets.empty(), ErrorCode::kUnsupported, "{}: no linear layer is left to quantize",
               source.dir().string());

  QuantizePlan plan;
  const auto add_outputs = [&](const QuantizePlan::Weight& w) {
    for (OutputTensor& out : linear_tensors(w.module, w.format, w.n, w.k, options.convention)) {
      plan.outputs.push_back(std::move(out));
    }
  };
  std::optional<QuantizePlan::Weight> lm_head;
  if (!ignores_lm_head) lm_head = plan_lm_head(source, modules, options);
  if (lm_head) {
    unquantized.erase(lm_head->module);
    plan.lm_head = lm_head->format;
  }
  std::map<std::string, size_t> groups;
  for (const TensorSummary& t : source.tensors()) {
    plan.bytes_in += t.bytes;
    if (lm_head && lm_head->tensor == t.name) {
      lm_head->dtype = t.dtype;
      plan.groups.push_back({{*lm_head}});
      add_outputs(*lm_head);
      if (lm_head->copied) plan.outputs.push_back({t.name, t.dtype, t.shape});
      continue;
    }
    const auto it = targets.find(t.name);
    if (it == targets.end()) {
      NIBBLE_CHECK(t.shape.size() != 3 || t.name.ends_with(".weight") ||
                       !holds_experts(split_path(t.name)) || ignore.matches(t.name),
                   ErrorCode::kUnsupported,
                   "{}: its experts are one 3-D tensor; expected a matrix for each, or an ignore "
                   "pattern for it",
                   t.name);
      plan.copied.push_back(t.name);
      plan.outputs.push_back({t.name, t.dtype, t.shape});
      continue;
    }
    const ModuleSummary& m = it->second;
    const auto [group, is_new] = groups.emplace(group_name(m.name), plan.groups.size());
    if (is_new) plan.groups.emplace_back();
    auto& weights = plan.groups[group->second].weights;
    weights.push_back({m.name, t.name, options.format, t.dtype, m.n, m.k, false});
    add_outputs(weights.back());
  }
  ignore.check_all_used();
  plan.unquantized.assign(unquantized.begin(), unquantized.end());
  return plan;
}

}  // namespace nibble
