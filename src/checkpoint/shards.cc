#include "checkpoint/shards.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/check.h"
#include "checkpoint/strict_json.h"

namespace nibble {
namespace {

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

// A shard is a file of the folder itself, so that an index can't name files elsewhere.
bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\\') == std::string::npos && name.find('\0') == std::string::npos;
}

bool by_name(const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; }

}  // namespace

TensorFiles::TensorFiles(const std::filesystem::path& dir) {
  const auto index_path = dir / kIndex;
  std::error_code ignored;  // what can't be looked at is not there
  const bool single = std::filesystem::exists(dir / kSingle, ignored);
  NIBBLE_CHECK(single || std::filesystem::exists(index_path, ignored), ErrorCode::kIo,
               "{}: no {} and no {}", dir.string(), kSingle, kIndex);
  std::map<std::string, std::string> weight_map;
  if (single) {
    add_file(dir / kSingle);
  } else {
    const std::string what = index_path.string();
    const auto json = parse_strict_json(read_text_file(index_path), what);
    NIBBLE_CHECK(json.is_object() && json.contains("weight_map") && json["weight_map"].is_object(),
                 ErrorCode::kCheckpoint, "{}: no object \"weight_map\"", what);
    std::set<std::string> names;
    for (const auto& [tensor, file] : json["weight_map"].items()) {
      NIBBLE_CHECK(file.is_string() && is_plain_file_name(file.get<std::string>()),
                   ErrorCode::kCheckpoint,
                   "{}: tensor {} is in {}, expected the name of a file in the same folder", what,
                   tensor, file.dump(-1, ' ', true));
      names.insert(file.get<std::string>());
      weight_map.emplace(tensor, file.get<std::string>());
    }
    for (const std::string& name : names) add_file(dir / name);
  }

  std::sort(tensors_.begin(), tensors_.end(), by_name);
  for (size_t i = 1; i < tensors_.size(); ++i) {
    NIBBLE_CHECK(tensors_[i].name != tensors_[i - 1].name, ErrorCode::kCheckpoint,
                 "{}: tensor {} is in two files: {} and {}", dir.string(), tensors_[i].name,
                 tensors_[i - 1].file->path().filename().string(),
                 tensors_[i].file->path().filename().string());
  }
  if (single) return;
  for (const auto& [tensor, file] : weight_map) {
    const StoredTensor* t = find(tensor);
    NIBBLE_CHECK(t && t->file->path().filename() == file, ErrorCode::kCheckpoint,
                 "{}: tensor {} is missing from {}, where the index says it is",
                 index_path.string(), tensor, file);
  }
  for (const StoredTensor& t : tensors_) {
    NIBBLE_CHECK(weight_map.contains(t.name), ErrorCode::kCheckpoint,
                 "{}: tensor {} is not in the index", t.file->path().string(), t.name);
  }
}

void TensorFiles::add_file(const std::filesystem::path& path) {
  files_.push_back(std::make_unique<MappedFile>(path));
  const MappedFile& file = *files_.back();
  for (TensorInfo& info : parse_safetensors(file.bytes(), path.string())) {
    const auto data = file.bytes().subspan(info.begin, info.end - info.begin);
    tensors_.push_back({std::move(info), data, &file});
  }
}

const StoredTensor* TensorFiles::find(std::string_view name) const {
  const auto it =
      std::lower_bound(tensors_.begin(), tensors_.end(), name,
                       [](const StoredTensor& t, std::string_view n) { return t.name < n; });
  return it != tensors_.end() && it->name == name ? &*it : nullptr;
}

void TensorFiles::release(std::span<const uint8_t> part) const {
  for (const auto& file : files_) {
    const auto all = file->bytes();
    if (std::greater_equal<>()(part.data(), all.data()) &&
        std::less_equal<>()(part.data() + part.size(), all.data() + all.size())) {
      file->release(part);
      return;
    }
  }
}

}  // namespace nibble
