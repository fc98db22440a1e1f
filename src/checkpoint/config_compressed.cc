#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/check.h"
#include "checkpoint/config_readers.h"

namespace nibble {
namespace {

using Json = nlohmann::json;

struct Preset {
  std::string_view name;
  WeightFormat format;
  bool static_input, fp4_input;
};
constexpr Preset kPresets[] = {
    {"NVFP4", WeightFormat::kNvfp4, true, true},  {"NVFP4A16", WeightFormat::kNvfp4, false, false},
    {"MXFP4", WeightFormat::kMxfp4, false, true}, {"MXFP4A16", WeightFormat::kMxfp4, false, false},
    {"FP8", WeightFormat::kF8, false, false},     {"FP8_DYNAMIC", WeightFormat::kF8, false, false},
};

constexpr std::pair<std::string_view, WeightFormat> kFormats[] = {
    {"nvfp4-pack-quantized", WeightFormat::kNvfp4},
    {"mxfp4-pack-quantized", WeightFormat::kMxfp4},
    {"float-quantized", WeightFormat::kF8},
    {"naive-quantized", WeightFormat::kF8},
};

// The format that the weights' arguments describe; nothing where Nibble has none.
std::optional<WeightFormat> format_of(const Json& weights) {
  if (weights.value("type", Json()) != "float") return std::nullopt;
  const Json bits = weights.value("num_bits", Json());
  const Json strategy = weights.value("strategy", Json());
  const Json group_size = weights.value("group_size", Json());
  if (bits == 4 && strategy == "tensor_group" && (group_size == 16 || group_size.is_null())) {
    return WeightFormat::kNvfp4;
  }
  if (bits == 4 && strategy == "group" && group_size == 32) return WeightFormat::kMxfp4;
  if (bits == 8 && (strategy == "tensor" || strategy == "channel")) return WeightFormat::kF8;
  return std::nullopt;
}

ModuleScheme read_group(const Json& group, const std::string& name, const std::string& top_format,
                        std::string_view what) {
  const Json weights = group.value("weights", Json());
  NIBBLE_CHECK(weights.is_object(), ErrorCode::kUnsupported,
               "{}: config_groups.{} quantizes no weights", what, name);
  std::string format = string_member(group, "format", what);
  if (format.empty() && top_format != "mixed-precision") format = top_format;
  const std::optional<WeightFormat> described = format_of(weights);
  NIBBLE_CHECK(described, ErrorCode::kUnsupported,
               "{}: config_groups.{} (format \"{}\") has weights of type {}, num_bits {}, strategy "
               "{}, group_size {}, which Nibble does not know",
               what, name, format, weights.value("type", Json()).dump(-1, ' ', true),
               weights.value("num_bits", Json()).dump(-1, ' ', true),
               weights.value("strategy", Json()).dump(-1, ' ', true),
               weights.value("group_size", Json()).dump(-1, ' ', true));
  if (format.empty()) {
    format = to_string(*described);
  } else {
    const auto* known = std::find_if(std::begin(kFormats), std::end(kFormats),
                                     [&](const auto& f) { return f.first == format; });
    NIBBLE_CHECK(known != std::end(kFormats), ErrorCode::kUnsupported,
                 "{}: unknown format \"{}\" in config_groups.{}", what, format, name);
    NIBBLE_CHECK(known->second == *described, ErrorCode::kCheckpoint,
                 "{}: config_groups.{} has the format \"{}\", but its weights are described as {}",
                 what, name, format, to_string(*described));
  }
  const Json input = group.value("input_activations", Json());
  NIBBLE_CHECK(input.is_null() || input.is_object(), ErrorCode::kCheckpoint,
               "{}: config_groups.{}.input_activations is {}, expected an object or null", what,
               name, input.type_name());
  // dynamic "local": block scales at run time, the global one from the file; true: both at run
  // time.
  const bool fp4_input =
      input.is_object() && input.value("num_bits", Json()) == 4 && is_fp4(*described);
  const bool static_input =
      fp4_input && *described == WeightFormat::kNvfp4 && input.value("dynamic", Json()) != true;
  return {*described, static_input, fp4_input, format};
}

ModuleScheme read_preset(const std::string& name, std::string_view what) {
  const std::string upper = upper_case(name);
  for (const Preset& preset : kPresets) {
    if (preset.name == upper) return {preset.format, preset.static_input, preset.fp4_input, name};
  }
  fail(ErrorCode::kUnsupported, "{}: config_groups has the unknown preset \"{}\"", what, name);
}

void add_rules(ModuleRules& rules, const Json& list, const char* key, std::string_view what) {
  for (std::string& entry : string_list(list, key, what)) {
    if (entry.starts_with("re:")) {
      rules.regexes.emplace_back(entry.substr(3), what);
    } else {
      rules.names.insert(std::move(entry));
    }
  }
}

}  // namespace

QuantConfig read_compressed_tensors_config(const Json& quantization, std::string_view what) {
  QuantConfig config;
  config.method = QuantConfig::Method::kCompressedTensors;
  // Both change what a weight means, so they can't be skipped.
  const Json transform = quantization.value("transform_config", Json());
  const bool rotated = !transform.empty() &&
                       !(transform.is_object() && transform.size() == 1 &&
                         transform.contains("config_groups") && transform["config_groups"].empty());
  NIBBLE_CHECK(!rotated, ErrorCode::kUnsupported,
               "{}: transform_config (rotated weights) is not supported", what);
  const Json sparsity = quantization.value("sparsity_config", Json());
  if (sparsity.is_object() && !sparsity.empty()) {
    const std::string format = string_member(sparsity, "format", what);
    NIBBLE_CHECK(format.empty() || format == "dense", ErrorCode::kUnsupported,
                 "{}: sparsity_config with the format \"{}\" is not supported", what, format);
  }

  const std::string top_format = string_member(quantization, "format", what);
  const Json groups = quantization.value("config_groups", Json());
  NIBBLE_CHECK(groups.is_object(), ErrorCode::kCheckpoint, "{}: no object \"config_groups\"", what);
  for (const auto& [name, group] : groups.items()) {
    NIBBLE_CHECK(group.is_object() || group.is_array(), ErrorCode::kCheckpoint,
                 "{}: config_groups.{} is {}, expected an object or a list of targets", what, name,
                 group.type_name());
    const bool preset = group.is_array();
    config.schemes.push_back(preset ? read_preset(name, what)
                                    : read_group(group, name, top_format, what));
    ModuleRules rules;
    add_rules(rules, preset ? group : group.value("targets", Json()), "targets", what);
    NIBBLE_CHECK(!rules.names.empty() || !rules.regexes.empty(), ErrorCode::kCheckpoint,
                 "{}: config_groups.{} has no targets", what, name);
    config.targets.emplace_back(std::move(rules), config.schemes.size() - 1);
  }
  add_rules(config.ignore, quantization.value("ignore", Json()), "ignore", what);
  return config;
}

}  // namespace nibble
