// The two kinds of quantization config, as config.cc hands them over.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/config.h"

namespace nibble {

// `quantization` is config.json's quantization_config or hf_quant_config.json's "quantization".
QuantConfig read_modelopt_config(const nlohmann::json& quantization, std::string_view what);
QuantConfig read_compressed_tensors_config(const nlohmann::json& quantization,
                                           std::string_view what);

// Helpers for both: a member by type, with an error that names it. A missing or null member gives
// an empty string, an empty list.
std::string string_member(const nlohmann::json& object, const char* key, std::string_view what);
std::vector<std::string> string_list(const nlohmann::json& list, const char* key,
                                     std::string_view what);
std::string upper_case(std::string_view text);

}  // namespace nibble
