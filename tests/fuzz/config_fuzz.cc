// Any text is a quantization config and a model config or a nibble::Error, and so is looking up any
// module in it. A line of dashes
// parts config.json from hf_quant_config.json, and that from a module name.
#include <cstdint>
#include <string_view>

#include "checkpoint/config.h"
#include "models/config.h"
#include "nibble/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto take = [&] {
    constexpr std::string_view kBorder = "\n---\n";
    const size_t border = text.find(kBorder);
    const std::string_view part = text.substr(0, border);
    text.remove_prefix(border == text.npos ? text.size() : border + kBorder.size());
    return part;
  };
  const std::string_view config_json = take(), hf_quant_config = take(), module = take();
  try {
    const auto config = nibble::QuantConfig::parse(config_json, hf_quant_config, "fuzz");
    for (std::string_view name : {module, std::string_view("model.layers.0.self_attn.qkv_proj"),
                                  std::string_view("lm_head")}) {
      config.find(name);
      config.may_be_plain(name);
    }
  } catch (const nibble::Error&) {
  }
  try {
    nibble::parse_model_config(config_json, "fuzz/config.json");
  } catch (const nibble::Error&) {
  }
  try {
    nibble::parse_generation_eos(config_json, "fuzz/generation_config.json");
  } catch (const nibble::Error&) {
  }
  return 0;
}
