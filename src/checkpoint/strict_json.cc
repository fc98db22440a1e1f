#include "checkpoint/strict_json.h"

#include <nlohmann/json.hpp>
#include <unordered_set>
#include <vector>

#include "base/check.h"
#include "base/mapped_file.h"

namespace nibble {

nlohmann::json parse_strict_json(std::string_view text, std::string_view what) {
  constexpr int kMaxDepth = 64;
  std::vector<std::unordered_set<std::string>> keys;  // of the objects that are open
  const auto callback = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& value) {
    if (event == nlohmann::json::parse_event_t::object_start ||
        event == nlohmann::json::parse_event_t::array_start) {
      NIBBLE_CHECK(depth < kMaxDepth, ErrorCode::kCheckpoint, "{}: nested more than {} deep", what,
                   kMaxDepth);
      if (event == nlohmann::json::parse_event_t::object_start) keys.emplace_back();
    } else if (event == nlohmann::json::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == nlohmann::json::parse_event_t::key) {
      const auto& key = value.get_ref<const std::string&>();
      NIBBLE_CHECK(keys.back().insert(key).second, ErrorCode::kCheckpoint,
                   "{}: the key \"{}\" stands twice in one object", what, key);
    }
    return true;
  };
  try {
    return nlohmann::json::parse(text, callback);
  } catch (const nlohmann::json::exception& e) {
    fail(ErrorCode::kCheckpoint, "{}: {}", what, e.what());
  }
}

std::string read_text_file(const std::filesystem::path& path) {
  constexpr size_t kMaxBytes = size_t{256} << 20;
  const MappedFile file(path);
  NIBBLE_CHECK(file.bytes().size() <= kMaxBytes, ErrorCode::kCheckpoint,
               "{}: {} bytes, expected at most {}", path.string(), file.bytes().size(), kMaxBytes);
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

}  // namespace nibble
