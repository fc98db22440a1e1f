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
  // {"String": "..."} or {"Regex": "..."}; throws kTokenizer for anything else.
  explicit Pattern(const JsonView& json);

  bool is_literal() const { return std::holds_alternative<std::string>(what_); }

  struct Part {
    size_t begin = 0, end = 0;
    bool is_match = false;
  };
  // Cuts valid UTF-8 into matches and what lies between them: contiguous, all of the text. A match
  // may be empty, but not right behind another match.
  std::vector<Part> cut(std::string_view text) const;

  std::string replace(std::string_view text, std::string_view by) const;

 private:
  std::variant<std::string, Regex> what_;
};

}  // namespace nibble::text
