// A JSON value that knows where it stands, so that every complaint can name file and key.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"

namespace nibble::text {

class JsonView {
 public:
  JsonView(const nlohmann::json& value, std::string source, std::string path)
      : value_(&value), source_(std::move(source)), path_(std::move(path)) {}

  // Throws kTokenizer: "<source>: <path>: <message>".
  template <class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) const {
    nibble::fail(ErrorCode::kTokenizer, "{}: {}", where(),
                 fmt::format(format, std::forward<Args>(args)...));
  }
  // "<source>: <path>"
  std::string where() const {
    return fmt::format("{}: {}", source_, path_.empty() ? "top level" : path_);
  }

  bool is_null() const { return value_->is_null(); }
  bool is_string() const { return value_->is_string(); }
  bool is_object() const { return value_->is_object(); }
  bool is_zero() const { return value_->is_number() && value_->get<double>() == 0; }

  const std::string& string() const {
    if (!value_->is_string()) wrong_type("a string");
    return value_->get_ref<const std::string&>();
  }
  bool boolean() const {
    if (!value_->is_boolean()) wrong_type("true or false");
    return value_->get<bool>();
  }
  // An integer in [0, limit].
  int64_t unsigned_integer(int64_t limit) const {
    if (!value_->is_number_unsigned()) wrong_type("an integer that is not negative");
    const auto n = value_->get<uint64_t>();
    if (n > static_cast<uint64_t>(limit)) fail("{} is above {}", n, limit);
    return static_cast<int64_t>(n);
  }

  // A key that must be there; one that may be missing or null.
  JsonView at(const std::string& key) const {
    if (auto found = find(key)) return *found;
    fail("\"{}\" is missing", key);
  }
  std::optional<JsonView> find(const std::string& key) const {
    if (!value_->is_object()) wrong_type("an object");
    const auto it = value_->find(key);
    if (it == value_->end() || it->is_null()) return std::nullopt;
    return JsonView(*it, source_, path_.empty() ? key : path_ + "." + key);
  }
  bool boolean_or(const std::string& key, bool fallback) const {
    const auto found = find(key);
    return found ? found->boolean() : fallback;
  }
  std::vector<JsonView> items() const {
    if (!value_->is_array()) wrong_type("an array");
    std::vector<JsonView> out;
    for (size_t i = 0; i < value_->size(); ++i) {
      out.emplace_back((*value_)[i], source_, fmt::format("{}[{}]", path_, i));
    }
    return out;
  }

 private:
  [[noreturn]] void wrong_type(std::string_view expected) const {
    fail("expected {}, found {}", expected, value_->type_name());
  }

  const nlohmann::json* value_;
  std::string source_;
  std::string path_;
};

}  // namespace nibble::text
