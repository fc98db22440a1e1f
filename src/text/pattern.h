// What Split and Replace look for: a literal string or a regular expression.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/json_view.h"
#include "text/regex.h"

namespace nibble::text {

class Pattern {
 public:
  explicit Pattern(Regex regex) : what_(std::move(regex)) {}
  explicit Pattern(std::string literal) : what_(std::move(literal)) {}  // which is not empty
  // {"String": "..."} or {"Regex": "..."}; throws kTokenizer for anything else.
  explicit Pattern(const JsonView& json);

  struct Part {
    size_t begin = 0, end = 0;
    bool is_match = false;
  };
  // Cuts valid UTF-8 into matches and what lies between them: contiguous, all of the text. A match
  // may be empty, but not right behind another match.
  std::vector<Part> cut(std::string_view text) const;

  // Throws kTokenizer where the result would have more than `max_bytes`: a chain of replacements
  // can grow a text exponentially.
  std::string replace(std::string_view text, std::string_view by, size_t max_bytes) const;

 private:
  std::variant<std::string, Regex> what_;
};

}  // namespace nibble::text
