#include "checkpoint/convention.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "base/check.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using OrderedJson = nlohmann::ordered_json;

constexpr const char* kCompressedVersion = "0.12.2";  // of the config's layout

struct Names {
  std::string codes, scales, global, input;
};

Names names_of(std::string_view module, Convention convention) {
  const bool compressed = convention == Convention::kCompressedTensors;
  return {fmt::format("{}.{}", module, compressed ? "weight_packed" : "weight"),
          fmt::format("{}.weight_scale", module),
          fmt::format("{}.{}", module, compressed ? "weight_global_scale" : "weight_scale_2"),
          fmt::format("{}.{}", module, compressed ? "input_global_scale" : "input_scale")};
}

// The divisor d with 1 / d == decode in fp32, where there is one: the correctly rounded reciprocal
// or a neighbour of it. Readers then get the very scale that was meant.
float divisor_of(float decode) {
  const float near = 1.0f / decode;
  for (float d : {near, std::nextafter(near, 0.0f), std::nextafter(near, INFINITY)}) {
    if (1.0f / d == decode) return d;
  }
  return near;
}

std::span<const uint8_t> bytes_of(const float& value) {
  return {reinterpret_cast<const uint8_t*>(&value), sizeof value};
}

bool is_mixed(const ExportConfig& config) {
  return config.lm_head && *config.lm_head != config.format;
}

OrderedJson modelopt_algorithm(WeightFormat format, bool static_input_scale) {
  switch (format) {
    case WeightFormat::kF8:
      return {{"quant_algo", "FP8_PER_CHANNEL_PER_TOKEN"}};
    case WeightFormat::kMxfp4:
      return {{"quant_algo", "MXFP4"}, {"group_size", block_size(format)}};
    default:
      return {{"quant_algo", static_input_scale ? "NVFP4" : "W4A16_NVFP4"},
              {"group_size", block_size(format)}};
  }
}

OrderedJson modelopt_config(const ExportConfig& config, const char* list_key) {
  OrderedJson result = is_mixed(config)
                           ? OrderedJson{{"quant_algo", "MIXED_PRECISION"}}
                           : modelopt_algorithm(config.format, config.static_input_scale);
  result["kv_cache_quant_algo"] = nullptr;
  result[list_key] = config.ignore;
  if (!is_mixed(config)) return result;
  for (const std::string& module : config.quantized) {
    result["quantized_layers"][module] =
        module == "lm_head" ? modelopt_algorithm(*config.lm_head, false)
                            : modelopt_algorithm(config.format, config.static_input_scale);
  }
  return result;
}

const char* compressed_format(WeightFormat format) {
  return format == WeightFormat::kNvfp4   ? "nvfp4-pack-quantized"
         : format == WeightFormat::kMxfp4 ? "mxfp4-pack-quantized"
                                          : "float-quantized";
}

OrderedJson quantization_args(WeightFormat format, bool input) {
  if (format == WeightFormat::kF8) {
    return {{"num_bits", 8},     {"type", "float"},  {"strategy", "channel"},
            {"symmetric", true}, {"dynamic", false}, {"group_size", nullptr}};
  }
  const bool nvfp4 = format == WeightFormat::kNvfp4;
  OrderedJson args = {{"num_bits", 4},
                      {"type", "float"},
                      {"strategy", nvfp4 ? "tensor_group" : "group"},
                      {"group_size", block_size(format)},
                      {"symmetric", true},
                      {"dynamic", false},
                      {"scale_dtype", nvfp4 ? "torch.float8_e4m3fn" : "torch.uint8"}};
  // Block scales at run time under a global scale from the file.
  if (input) args["dynamic"] = "local";
  return args;
}

OrderedJson compressed_group(WeightFormat format, OrderedJson targets, bool static_input_scale) {
  return {
      {"targets", std::move(targets)},
      {"weights", quantization_args(format, false)},
      {"input_activations", static_input_scale ? quantization_args(format, true) : OrderedJson()},
      {"output_activations", nullptr},
      {"format", compressed_format(format)}};
}

OrderedJson quantization_config(const ExportConfig& config) {
  if (config.convention == Convention::kModelOpt) {
    OrderedJson result = modelopt_config(config, "ignore");
    result["producer"] = {{"name", "modelopt"}, {"version", "nibble"}};
    result["quant_method"] = "modelopt";
    // Groups by class would say that the lm_head is in 4 bits.
    if (is_mixed(config)) return result;
    result["config_groups"]["group_0"] = {{"weights",
                                           {{"dynamic", false},
                                            {"num_bits", 4},
                                            {"type", "float"},
                                            {"group_size", block_size(config.format)}}},
                                          {"targets", {"Linear"}}};
    if (config.static_input_scale) {
      auto& group = result["config_groups"]["group_0"];
      group["input_activations"] = group["weights"];
    }
    return result;
  }
  // Readers know the lm_head by its name: for some of them its class is not Linear.
  OrderedJson groups;
  OrderedJson targets = {"Linear"};
  if (config.lm_head && !is_mixed(config)) targets.push_back("lm_head");
  groups["group_0"] = compressed_group(config.format, targets, config.static_input_scale);
  if (is_mixed(config)) {
    groups["group_1"] = compressed_group(*config.lm_head, {"lm_head"}, false);
  }
  return {{"quant_method", "compressed-tensors"},
          {"format", is_mixed(config) ? "mixed-precision" : compressed_format(config.format)},
          {"quantization_status", "compressed"},
          {"config_groups", groups},
          {"ignore", config.ignore},
          {"kv_cache_scheme", nullptr},
          {"global_compression_ratio", nullptr},
          {"version", kCompressedVersion}};
}

// Tokenizer, chat template, generation config, custom code, licence: whatever a model folder has
// besides weights. Named by kind, so that no stray large file is taken along.
bool is_companion(const fs::path& path) {
  const std::string name = path.filename().string();
  static const std::set<std::string> kOwn = {"config.json", "hf_quant_config.json"};
  if (kOwn.contains(name) || name.ends_with(".index.json") || name.starts_with(".")) return false;
  static const std::set<std::string> kExtensions = {".json", ".jinja", ".model", ".txt", ".py"};
  return kExtensions.contains(path.extension().string()) || name.starts_with("LICENSE") ||
         name.starts_with("NOTICE");
}

}  // namespace

std::vector<OutputTensor> linear_tensors(std::string_view module, WeightFormat format, int64_t n,
                                         int64_t k, Convention convention,
                                         bool static_input_scale) {
  const bool fp8 = format == WeightFormat::kF8;
  NIBBLE_CHECK(is_fp4(format) || fp8, ErrorCode::kInvalidArgument, "{}: can't be written as {}",
               module, to_string(format));
  NIBBLE_CHECK(n > 0 && k > 0 && (fp8 || k % block_size(format) == 0), ErrorCode::kInvalidArgument,
               "{}: n = {}, k = {}, expected k to be a multiple of {} for {}", module, n, k,
               block_size(format), to_string(format));
  const bool nvfp4 = format == WeightFormat::kNvfp4;
  NIBBLE_CHECK(nvfp4 || !static_input_scale, ErrorCode::kInvalidArgument,
               "{}: {} has no static activation scale", module, to_string(format));
  if (fp8) {
    const bool column = convention == Convention::kCompressedTensors;
    return {{fmt::format("{}.weight", module), DType::kF8E4M3, {n, k}},
            {fmt::format("{}.weight_scale", module), DType::kF32,
             column ? std::vector<int64_t>{n, 1} : std::vector<int64_t>{n}}};
  }
  Names names = names_of(module, convention);
  std::vector<OutputTensor> tensors = {
      {names.codes, DType::kU8, {n, k / 2}},
      {names.scales, nvfp4 ? DType::kF8E4M3 : DType::kU8, {n, k / block_size(format)}}};
  // The shapes of a single number that either convention's exporter writes.
  std::vector<int64_t> one;
  if (convention == Convention::kCompressedTensors) one.push_back(1);
  if (nvfp4) tensors.push_back({names.global, DType::kF32, one});
  if (static_input_scale) tensors.push_back({names.input, DType::kF32, one});
  return tensors;
}

void write_linear(CheckpointWriter& writer, std::string_view module, const WeightTensor& weight,
                  Convention convention, int64_t first_row) {
  const auto write_rows = [&](const std::string& name, const uint8_t* rows, int64_t row_size) {
    writer.write(name, {rows, static_cast<size_t>(weight.n * row_size)}, first_row * row_size);
  };
  const int64_t code_bytes = row_bytes(weight.format, weight.k);
  if (weight.format == WeightFormat::kF8) {
    write_rows(fmt::format("{}.weight", module), weight.codes, code_bytes);
    write_rows(fmt::format("{}.weight_scale", module),
               reinterpret_cast<const uint8_t*>(weight.row_scales), sizeof(float));
    return;
  }
  NIBBLE_CHECK(is_fp4(weight.format), ErrorCode::kInvalidArgument, "{}: can't be written as {}",
               module, to_string(weight.format));
  const Names names = names_of(module, convention);
  write_rows(names.codes, weight.codes, code_bytes);
  write_rows(names.scales, weight.scales, weight.k / block_size(weight.format));
  if (weight.format == WeightFormat::kMxfp4 || first_row > 0) return;
  NIBBLE_CHECK(weight.segments.size() == 1, ErrorCode::kInvalidArgument,
               "{}: {} global scales, expected one; write fused projections apart", module,
               weight.segments.size());
  const auto write_scalar = [&](const std::string& name, float decode) {
    const float value = convention == Convention::kCompressedTensors ? divisor_of(decode) : decode;
    NIBBLE_CHECK(std::isfinite(value) && value > 0, ErrorCode::kInvalidArgument,
                 "{}: the scale {} can't be stored", name, decode);
    writer.write(name, bytes_of(value));
  };
  write_scalar(names.global, weight.segments[0].global_decode_scale);
  if (weight.input_decode_scale != 0) write_scalar(names.input, weight.input_decode_scale);
}

void write_configs(CheckpointWriter& writer, const Checkpoint& source, const ExportConfig& config) {
  OrderedJson json =
      OrderedJson::parse(source.config_json());  // Checkpoint::open has parsed it before
  if (config.lm_head) json["tie_word_embeddings"] = false;
  json["quantization_config"] = quantization_config(config);
  writer.add_file("config.json", json.dump(2) + "\n");
  if (config.convention == Convention::kModelOpt) {
    const OrderedJson hf = {{"producer", {{"name", "modelopt"}, {"version", "nibble"}}},
                            {"quantization", modelopt_config(config, "exclude_modules")}};
    writer.add_file("hf_quant_config.json", hf.dump(2) + "\n");
  }
  std::error_code error;
  std::vector<fs::path> companions;
  for (const auto& entry : fs::directory_iterator(source.dir(), error)) {
    if (entry.is_regular_file(error) && is_companion(entry.path())) {
      companions.push_back(entry.path());
    }
  }
  NIBBLE_CHECK(!error, ErrorCode::kIo, "{}: can't list: {}", source.dir().string(),
               error.message());
  std::sort(companions.begin(), companions.end());
  for (const fs::path& path : companions) writer.copy_file(path);
}

}  // namespace nibble
