#include "models/config.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/check.h"

namespace nibble {
namespace {

using nlohmann::json;

// Far above any real model, and low enough that no product of sizes overflows 64 bits.
constexpr int64_t kMaxDim = int64_t{1} << 20;
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxHeadDim = 4096;
constexpr int64_t kMaxVocab = int64_t{1} << 24;
constexpr int64_t kMaxContext = int64_t{1} << 24;

std::string shorten(const json& value) {
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true);
  constexpr size_t kLongest = 60;
  return text.size() > kLongest ? text.substr(0, kLongest) + "..." : text;
}

json parse_object(std::string_view text, const std::string& file) {
  json root;
  try {
    root = json::parse(text);
  } catch (const json::exception& e) {
    fail(ErrorCode::kCheckpoint, "{}: not valid JSON: {}", file, e.what());
  }
  NIBBLE_CHECK(root.is_object(), ErrorCode::kCheckpoint, "{}: expected a JSON object, found {}",
               file, shorten(root));
  return root;
}

// Typed access to the fields of one JSON object. A field that is null counts as absent.
class Fields {
 public:
  Fields(const json& object, std::string where) : object_(object), where_(std::move(where)) {}

  const json* find(const char* name) const {
    const auto it = object_.find(name);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  int64_t integer(const char* name, int64_t low, int64_t high,
                  std::optional<int64_t> fallback = {}) const {
    const json* value = find(name);
    if (value == nullptr && fallback) return *fallback;
    const bool in_range =
        value != nullptr && value->is_number_integer() &&
        !(value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(high)) &&
        value->get<int64_t>() >= low && value->get<int64_t>() <= high;
    NIBBLE_CHECK(in_range, ErrorCode::kCheckpoint,
                 "{}: '{}' must be an integer from {} to {}, found {}", where_, name, low, high,
                 found(value));
    return value->get<int64_t>();
  }

  // A finite number above zero.
  double positive(const char* name, std::optional<double> fallback = {}) const {
    const json* value = find(name);
    if (value == nullptr && fallback) return *fallback;
    const bool ok = value != nullptr && value->is_number() && value->get<double>() > 0.0 &&
                    value->get<double>() <= std::numeric_limits<float>::max();
    NIBBLE_CHECK(ok, ErrorCode::kCheckpoint, "{}: '{}' must be a number above 0, found {}", where_,
                 name, found(value));
    return value->get<double>();
  }

  bool boolean(const char* name, bool fallback) const {
    const json* value = find(name);
    if (value == nullptr) return fallback;
    NIBBLE_CHECK(value->is_boolean(), ErrorCode::kCheckpoint,
                 "{}: '{}' must be true or false, found {}", where_, name, found(value));
    return value->get<bool>();
  }

  std::string string(const char* name, const std::string& fallback) const {
    const json* value = find(name);
    if (value == nullptr) return fallback;
    NIBBLE_CHECK(value->is_string(), ErrorCode::kCheckpoint, "{}: '{}' must be a string, found {}",
                 where_, name, found(value));
    return value->get<std::string>();
  }

  // One id or a list of ids.
  std::vector<int32_t> ids(const char* name) const {
    const json* value = find(name);
    if (value == nullptr) return {};
    const json list = value->is_array() ? *value : json::array({*value});
    std::vector<int32_t> out;
    for (const json& id : list) {
      NIBBLE_CHECK(id.is_number_unsigned() && id.get<uint64_t>() < uint64_t{kMaxVocab},
                   ErrorCode::kCheckpoint,
                   "{}: '{}' must be a token id or a list of them, found {}", where_, name,
                   found(value));
      out.push_back(static_cast<int32_t>(id.get<uint64_t>()));
    }
    return out;
  }

  const std::string& where() const { return where_; }

 private:
  static std::string found(const json* value) { return value ? shorten(*value) : "nothing"; }

  const json& object_;
  std::string where_;
};

RopeType parse_rope_type(const std::string& type, const std::string& where) {
  if (type == "default") return RopeType::kDefault;
  if (type == "linear") return RopeType::kLinear;
  if (type == "llama3") return RopeType::kLlama3;
  if (type == "yarn") return RopeType::kYarn;
  // "dynamic" would make a token's keys depend on how long the sequence was when it was added.
  fail(ErrorCode::kUnsupported,
       "{}: rope type '{}' is not supported (known: default, linear, llama3, yarn)", where, type);
}

void parse_yarn(const Fields& rope, int64_t max_positions, RopeConfig& out) {
  NIBBLE_CHECK(rope.find("mscale") == nullptr && rope.find("mscale_all_dim") == nullptr,
               ErrorCode::kUnsupported,
               "{}: yarn with 'mscale' or 'mscale_all_dim' is not supported", rope.where());
  out.original_context =
      rope.integer("original_max_position_embeddings", 1, kMaxContext, max_positions);
  out.beta_fast = rope.positive("beta_fast", out.beta_fast);
  out.beta_slow = rope.positive("beta_slow", out.beta_slow);
  out.truncate = rope.boolean("truncate", true);
  // The YaRN paper's temperature (arXiv 2309.00071, section 3.4), as a factor of q and k each.
  const double paper = out.factor > 1.0 ? 0.1 * std::log(out.factor) + 1.0 : 1.0;
  out.attention_factor = rope.positive("attention_factor", paper);
}

void parse_llama3(const Fields& rope, RopeConfig& out) {
  out.low_freq_factor = rope.positive("low_freq_factor");
  out.high_freq_factor = rope.positive("high_freq_factor");
  NIBBLE_CHECK(out.low_freq_factor < out.high_freq_factor, ErrorCode::kCheckpoint,
               "{}: 'low_freq_factor' {} must be below 'high_freq_factor' {}", rope.where(),
               out.low_freq_factor, out.high_freq_factor);
  out.original_context = rope.integer("original_max_position_embeddings", 1, kMaxContext);
}

// transformers 5 writes all of it to rope_parameters; before, rope_theta stood at the top and the
// rest in rope_scaling.
RopeConfig parse_rope(const Fields& config, int64_t max_positions) {
  RopeConfig out;
  out.theta = config.positive("rope_theta", out.theta);
  const char* section = config.find("rope_parameters") ? "rope_parameters" : "rope_scaling";
  const json* object = config.find(section);
  if (object == nullptr) return out;
  NIBBLE_CHECK(object->is_object(), ErrorCode::kCheckpoint,
               "{}: '{}' must be an object or null, found {}", config.where(), section,
               shorten(*object));
  const Fields rope(*object, config.where() + ": " + section);
  for (const auto& [name, value] : object->items()) {
    NIBBLE_CHECK(!value.is_object(), ErrorCode::kUnsupported,
                 "{}: rope settings per layer type ('{}') are not supported", rope.where(), name);
  }
  out.theta = rope.positive("rope_theta", out.theta);
  out.type =
      parse_rope_type(rope.string("rope_type", rope.string("type", "default")), rope.where());
  if (out.type != RopeType::kDefault) out.factor = rope.positive("factor");
  if (out.type == RopeType::kLlama3) parse_llama3(rope, out);
  if (out.type == RopeType::kYarn) parse_yarn(rope, max_positions, out);
  NIBBLE_CHECK(rope.positive("partial_rotary_factor", 1.0) == 1.0, ErrorCode::kUnsupported,
               "{}: 'partial_rotary_factor' other than 1 is not supported", rope.where());
  return out;
}

std::string parse_architecture(const Fields& config) {
  const json* list = config.find("architectures");
  NIBBLE_CHECK(list != nullptr && list->is_array() && !list->empty() && list->front().is_string(),
               ErrorCode::kCheckpoint, "{}: 'architectures' must be a list of names, found {}",
               config.where(), list ? shorten(*list) : "nothing");
  return list->front().get<std::string>();
}

// Things that would change the result and that no forward here computes.
void refuse_unknown_computation(const Fields& config) {
  const std::string activation = config.string("hidden_act", "silu");
  NIBBLE_CHECK(activation == "silu", ErrorCode::kUnsupported,
               "{}: 'hidden_act' is \"{}\", supported is \"silu\"", config.where(), activation);
  NIBBLE_CHECK(!config.boolean("use_sliding_window", false), ErrorCode::kUnsupported,
               "{}: 'use_sliding_window' is not supported", config.where());
  NIBBLE_CHECK(config.positive("partial_rotary_factor", 1.0) == 1.0, ErrorCode::kUnsupported,
               "{}: 'partial_rotary_factor' other than 1 is not supported", config.where());
}

}  // namespace

ModelConfig parse_model_config(std::string_view text, const std::filesystem::path& file) {
  const json root = parse_object(text, file.string());
  const Fields config(root, file.string());
  ModelConfig out;
  out.architecture = parse_architecture(config);
  refuse_unknown_computation(config);
  out.hidden_size = config.integer("hidden_size", 1, kMaxDim);
  out.intermediate_size = config.integer("intermediate_size", 1, kMaxDim);
  out.num_layers = config.integer("num_hidden_layers", 1, kMaxLayers);
  out.num_heads = config.integer("num_attention_heads", 1, kMaxDim);
  out.num_kv_heads = config.integer("num_key_value_heads", 1, out.num_heads, out.num_heads);
  NIBBLE_CHECK(out.num_heads % out.num_kv_heads == 0, ErrorCode::kCheckpoint,
               "{}: 'num_attention_heads' {} must be a multiple of 'num_key_value_heads' {}",
               config.where(), out.num_heads, out.num_kv_heads);
  if (config.find("head_dim") == nullptr) {
    NIBBLE_CHECK(out.hidden_size % out.num_heads == 0, ErrorCode::kCheckpoint,
                 "{}: without 'head_dim', 'hidden_size' {} must be a multiple of "
                 "'num_attention_heads' {}",
                 config.where(), out.hidden_size, out.num_heads);
  }
  out.head_dim = config.integer("head_dim", 2, kMaxHeadDim, out.hidden_size / out.num_heads);
  NIBBLE_CHECK(out.head_dim >= 2 && out.head_dim % 2 == 0 && out.head_dim <= kMaxHeadDim,
               ErrorCode::kCheckpoint, "{}: 'head_dim' must be even and from 2 to {}, found {}",
               config.where(), kMaxHeadDim, out.head_dim);
  NIBBLE_CHECK(out.q_size() <= kMaxDim, ErrorCode::kCheckpoint,
               "{}: 'num_attention_heads' x 'head_dim' must be at most {}, found {}",
               config.where(), kMaxDim, out.q_size());
  out.vocab_size = config.integer("vocab_size", 1, kMaxVocab);
  out.context_length = config.integer("max_position_embeddings", 1, kMaxContext);
  out.rms_norm_eps = static_cast<float>(config.positive("rms_norm_eps", 1e-6));
  out.tied_embeddings = config.boolean("tie_word_embeddings", false);
  out.attention_bias = config.boolean("attention_bias", false);
  out.mlp_bias = config.boolean("mlp_bias", false);
  out.rope = parse_rope(config, out.context_length);
  if (out.rope.type == RopeType::kYarn) {
    const double stretched = out.rope.factor * static_cast<double>(out.rope.original_context);
    out.context_length =
        std::max(out.context_length,
                 static_cast<int64_t>(std::min(stretched, static_cast<double>(kMaxContext))));
  }
  NIBBLE_CHECK(out.rope.theta > 1.0, ErrorCode::kCheckpoint,
               "{}: 'rope_theta' must be above 1, found {}", config.where(), out.rope.theta);
  out.eos_ids = config.ids("eos_token_id");
  return out;
}

std::vector<int32_t> parse_generation_eos(std::string_view text,
                                          const std::filesystem::path& file) {
  const json root = parse_object(text, file.string());
  return Fields(root, file.string()).ids("eos_token_id");
}

}  // namespace nibble
