// A JSON value that knows where it stands, so that every complaint can name file and key.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
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
  std::string where() const;

  bool is_object() const;
  bool is_zero() const;

  const std::string& string() const;
  bool boolean() const;
  // An integer in [0, limit].
  int64_t unsigned_integer(int64_t limit) const;

  // A key that must be there; one that may be missing or null.
  JsonView at(const std::string& key) const;
  std::optional<JsonView> find(const std::string& key) const;
  bool boolean_or(const std::string& key, bool fallback) const;
  std::vector<JsonView> items() const;

 private:
  [[noreturn]] void wrong_type(std::string_view expected) const;

  const nlohmann::json* value_;
  std::string source_;
  std::string path_;
};

}  // namespace nibble::text
