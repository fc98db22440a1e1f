#include <map>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "checkpoint/config_readers.h"

namespace nibble {
namespace {

using Json = nlohmann::json;

struct Algorithm {
  std::string_view name;
  WeightFormat format;
  bool static_input;
};

// W4A8_*: the stored input scale is amax / 448, for 8-bit activations. "MXFP4" is written for
// weights alone as well, so that it says nothing of activations.
constexpr Algorithm kAlgorithms[] = {
    {"NVFP4", WeightFormat::kNvfp4, true},
    {"NVFP4_AWQ", WeightFormat::kNvfp4, true},
    {"NVFP4_SVD", WeightFormat::kNvfp4, true},
    {"W4A16_NVFP4", WeightFormat::kNvfp4, false},
    {"W4A8_NVFP4_FP8", WeightFormat::kNvfp4, false},
    {"MXFP4", WeightFormat::kMxfp4, false},
    {"W4A8_MXFP4_FP8", WeightFormat::kMxfp4, false},
    {"FP8", WeightFormat::kF8, false},
    {"FP8_PER_CHANNEL_PER_TOKEN", WeightFormat::kF8, false},
};

ModuleScheme read_algorithm(const Json& object, std::string_view where, std::string_view what) {
  const std::string text = string_member(object, "quant_algo", what);
  const std::string upper = upper_case(text);
  for (const Algorithm& a : kAlgorithms) {
    if (a.name != upper) continue;
    const Json group_size = object.value("group_size", Json());
    const int64_t block = block_size(a.format);
    NIBBLE_CHECK(block == 0 || group_size.is_null() || group_size == block, ErrorCode::kCheckpoint,
                 "{}: group_size{} is {}, expected {} for {}", what, where,
                 group_size.dump(-1, ' ', true), block, text);
    return {a.format, a.static_input, a.static_input, text};
  }
  fail(ErrorCode::kUnsupported, "{}: unknown quant_algo \"{}\"{}", what, text, where);
}

}  // namespace

QuantConfig read_modelopt_config(const Json& quantization, std::string_view what) {
  QuantConfig config;
  const std::string algorithm = string_member(quantization, "quant_algo", what);
  if (algorithm.empty()) return config;  // only the KV cache is quantized
  config.method = QuantConfig::Method::kModelOpt;
  const Json embed = quantization.value("nvfp4_embed", Json());
  NIBBLE_CHECK(embed.is_null() || embed == false, ErrorCode::kUnsupported,
               "{}: nvfp4_embed (an embedding in NVFP4) is not supported", what);

  for (const char* key : {"exclude_modules", "ignore"}) {
    for (std::string& name : string_list(quantization.value(key, Json()), key, what)) {
      if (name.empty()) continue;
      if (name.find_first_of("*?[") == name.npos) {
        config.ignore.names.insert(std::move(name));
      } else {
        config.ignore.globs.push_back(std::move(name));
      }
    }
  }

  if (upper_case(algorithm) != "MIXED_PRECISION") {
    config.schemes.push_back(read_algorithm(quantization, "", what));
    config.targets.emplace_back(ModuleRules(), 0);
    return config;
  }
  const Json layers = quantization.value("quantized_layers", Json());
  NIBBLE_CHECK(layers.is_object(), ErrorCode::kCheckpoint,
               "{}: quant_algo is MIXED_PRECISION, but there is no object \"quantized_layers\"",
               what);
  std::map<std::string, size_t> known;  // by algorithm
  for (const auto& [module, layer] : layers.items()) {
    NIBBLE_CHECK(layer.is_object(), ErrorCode::kCheckpoint,
                 "{}: quantized_layers.{} is not an object", what, module);
    ModuleScheme scheme = read_algorithm(layer, fmt::format(" of {}", module), what);
    const auto [it, added] = known.emplace(scheme.name, config.schemes.size());
    if (added) {
      config.schemes.push_back(std::move(scheme));
      config.targets.emplace_back(ModuleRules(), it->second);
    }
    config.targets[it->second].first.names.insert(module);
  }
  return config;
}

}  // namespace nibble
