#include "checkpoint/config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "checkpoint/config_readers.h"
#include "checkpoint/strict_json.h"

namespace nibble {
namespace {

using Json = nlohmann::json;

// Configs name classes of the Python model. Of those, only two hold matrices.
std::string_view class_of(std::string_view module) {
  const std::string_view last = split_path(module).back();
  return last.find("embed") != last.npos || last == "wte" || last == "wpe" ? "Embedding" : "Linear";
}

// A fused projection is stored under a name that configs may not list; its parts' names are.
std::vector<std::string> unfused_names(std::string_view module) {
  struct Fused {
    std::string_view name;
    std::vector<std::string_view> parts;
  };
  static const Fused kFused[] = {{"qkv_proj", {"q_proj", "k_proj", "v_proj"}},
                                 {"gate_up_proj", {"gate_proj", "up_proj"}},
                                 {"w13", {"w1", "w3"}}};
  std::vector<std::string> names;
  for (const Fused& fused : kFused) {
    if (!module.ends_with(fused.name)) continue;
    const std::string_view prefix = module.substr(0, module.size() - fused.name.size());
    if (!prefix.empty() && prefix.back() != '.') continue;
    for (std::string_view part : fused.parts) names.push_back(std::string(prefix).append(part));
  }
  return names;
}

// ModelOpt's patterns: the name itself, any run of whole components of it (old exports list parts
// of names), or a glob, of which `prefix*` means the module `prefix` and what is under it.
bool modelopt_match(const ModuleRules& rules, std::string_view module) {
  for (size_t begin = 0;;) {
    const size_t dot = module.find('.', begin);
    for (size_t end = dot;; end = module.find('.', end + 1)) {
      if (rules.names.contains(module.substr(begin, end - begin))) return true;
      if (end == module.npos) break;
    }
    if (dot == module.npos) break;
    begin = dot + 1;
  }
  return std::any_of(rules.globs.begin(), rules.globs.end(), [&](const std::string& glob) {
    if (glob.size() > 1 && glob.back() == '*' && glob[glob.size() - 2] != '.') {
      const std::string prefix = glob.substr(0, glob.size() - 1);
      return glob_match(prefix, module) || glob_match(prefix + ".*", module);
    }
    return glob_match(glob, module);
  });
}

bool compressed_match(const ModuleRules& rules, std::string_view module) {
  return rules.names.contains(module) || rules.names.contains(class_of(module)) ||
         std::any_of(rules.regexes.begin(), rules.regexes.end(),
                     [&](const Regex& regex) { return regex.match(module); });
}

bool ignored(const QuantConfig& config, std::string_view module) {
  const auto match =
      config.method == QuantConfig::Method::kModelOpt ? modelopt_match : compressed_match;
  if (match(config.ignore, module)) return true;
  const auto parts = unfused_names(module);
  return !parts.empty() && std::all_of(parts.begin(), parts.end(), [&](const std::string& part) {
    return match(config.ignore, part);
  });
}

// The scheme whose targets name the module most precisely: by its path, by a regex, by its class.
const ModuleScheme* targeted(const QuantConfig& config, std::string_view module) {
  if (config.method == QuantConfig::Method::kModelOpt) {
    // No rules: everything but embeddings. MIXED_PRECISION lists modules or what stands above them.
    for (const auto& [rules, scheme] : config.targets) {
      if (rules.names.empty())
        return class_of(module) == "Linear" ? &config.schemes[scheme] : nullptr;
    }
    for (std::string_view name = module;;) {
      for (const auto& [rules, scheme] : config.targets) {
        if (rules.names.contains(name)) return &config.schemes[scheme];
      }
      const size_t dot = name.rfind('.');
      if (dot == name.npos) return nullptr;
      name = name.substr(0, dot);
    }
  }
  const auto first = [&](auto&& matches) -> const ModuleScheme* {
    for (const auto& [rules, scheme] : config.targets) {
      if (matches(rules)) return &config.schemes[scheme];
    }
    return nullptr;
  };
  if (auto* s = first([&](const ModuleRules& r) { return r.names.contains(module); })) return s;
  if (auto* s = first([&](const ModuleRules& r) {
        return std::any_of(r.regexes.begin(), r.regexes.end(),
                           [&](const Regex& regex) { return regex.match(module); });
      })) {
    return s;
  }
  return first([&](const ModuleRules& r) { return r.names.contains(class_of(module)); });
}

}  // namespace

const ModuleScheme* QuantConfig::find(std::string_view module) const {
  if (method == Method::kNone || ignored(*this, module)) return nullptr;
  if (const ModuleScheme* scheme = targeted(*this, module)) return scheme;
  const ModuleScheme* common = nullptr;
  for (const std::string& part : unfused_names(module)) {
    const ModuleScheme* scheme = targeted(*this, part);
    if (scheme == nullptr || (common != nullptr && scheme != common)) return nullptr;
    common = scheme;
  }
  return common;
}

bool QuantConfig::quantizes_activations() const {
  bool any = false;
  for (const ModuleScheme& scheme : schemes) {
    if (!is_fp4(scheme.format)) continue;
    if (!scheme.fp4_input) return false;
    any = true;
  }
  return any;
}

bool QuantConfig::may_be_plain(std::string_view module) const {
  for (std::string_view part : split_path(module)) {
    if (part == "vision_tower" || part == "vision_model" || part == "visual") return true;
  }
  if (module == "lm_head" || module.ends_with(".lm_head")) return true;
  if (method != Method::kModelOpt) return false;
  return std::any_of(ignore.names.begin(), ignore.names.end(),
                     [&](const std::string& name) { return module.find(name) != module.npos; }) ||
         std::any_of(ignore.globs.begin(), ignore.globs.end(),
                     [&](const std::string& glob) { return glob_match(glob, module); });
}

QuantConfig QuantConfig::parse(std::string_view config_json, std::string_view hf_quant_config_json,
                               std::string_view what) {
  const std::string config_name = fmt::format("{}/config.json", what);
  const std::string hf_name = fmt::format("{}/hf_quant_config.json", what);
  const Json config = parse_strict_json(config_json, config_name);
  NIBBLE_CHECK(config.is_object(), ErrorCode::kCheckpoint, "{}: not an object", config_name);
  const Json inner = config.value("quantization_config", Json());
  NIBBLE_CHECK(inner.is_null() || inner.is_object(), ErrorCode::kCheckpoint,
               "{}: quantization_config is not an object", config_name);

  Json hf;
  if (!hf_quant_config_json.empty()) {
    const Json file = parse_strict_json(hf_quant_config_json, hf_name);
    NIBBLE_CHECK(
        file.is_object() && file.contains("quantization") && file["quantization"].is_object(),
        ErrorCode::kCheckpoint, "{}: no object \"quantization\"", hf_name);
    hf = file["quantization"];
  }
  if (inner.is_null()) return hf.is_null() ? QuantConfig() : read_modelopt_config(hf, hf_name);

  const std::string method = string_member(inner, "quant_method", config_name);
  const std::string upper = upper_case(method);
  if (upper == "COMPRESSED-TENSORS") {
    NIBBLE_CHECK(hf.is_null(), ErrorCode::kCheckpoint,
                 "{}: quant_method is \"{}\", but a ModelOpt hf_quant_config.json is there as well",
                 config_name, method);
    return read_compressed_tensors_config(inner, config_name);
  }
  NIBBLE_CHECK(upper == "MODELOPT" || upper.starts_with("MODELOPT_"), ErrorCode::kUnsupported,
               "{}: unknown quant_method \"{}\", expected modelopt or compressed-tensors",
               config_name, method);
  const Json& block = inner.contains("quantization") && inner["quantization"].is_object()
                          ? inner["quantization"]
                          : inner;
  if (!hf.is_null()) {
    const std::string a = upper_case(string_member(block, "quant_algo", config_name));
    const std::string b = upper_case(string_member(hf, "quant_algo", hf_name));
    NIBBLE_CHECK(a.empty() || a == b, ErrorCode::kCheckpoint,
                 "{}: quant_algo is {}, but hf_quant_config.json says {}", config_name, a, b);
    // Older exporters wrote a shorter summary to config.json than to their own file.
    if (a.empty() || (!block.contains("ignore") && !block.contains("exclude_modules") &&
                      !block.contains("quantized_layers"))) {
      return read_modelopt_config(hf, hf_name);
    }
  }
  return read_modelopt_config(block, config_name);
}

std::string string_member(const Json& object, const char* key, std::string_view what) {
  const auto it = object.find(key);
  if (it == object.end() || it->is_null()) return {};
  NIBBLE_CHECK(it->is_string(), ErrorCode::kCheckpoint, "{}: \"{}\" is {}, expected a string", what,
               key, it->type_name());
  return it->get<std::string>();
}

std::vector<std::string> string_list(const Json& list, const char* key, std::string_view what) {
  if (list.is_null()) return {};
  NIBBLE_CHECK(list.is_array(), ErrorCode::kCheckpoint, "{}: \"{}\" is {}, expected a list", what,
               key, list.type_name());
  std::vector<std::string> result;
  for (const Json& item : list) {
    NIBBLE_CHECK(item.is_string(), ErrorCode::kCheckpoint,
                 "{}: \"{}\" holds a {}, expected strings", what, key, item.type_name());
    result.push_back(item.get<std::string>());
  }
  return result;
}

std::string upper_case(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  return result;
}

}  // namespace nibble
