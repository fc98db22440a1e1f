// JSON documents of a checkpoint: as nlohmann parses them, but doubled keys and deep nesting are
// errors.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace nibble {

// `what` names the document in messages. Throws kCheckpoint.
nlohmann::json parse_strict_json(std::string_view text, std::string_view what);

// Text of a file of at most 256 MiB. Throws kIo.
std::string read_text_file(const std::filesystem::path& path);

}  // namespace nibble
