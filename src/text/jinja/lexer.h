// Template text to tokens, with Jinja's whitespace control (trim_blocks and lstrip_blocks on).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::jinja {

enum class TokenKind {
  kText,           // literal output
  kVariableBegin,  // {{
  kVariableEnd,
  kBlockBegin,  // {%
  kBlockEnd,
  kName,
  kString,  // text is the decoded string
  kInt,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind;
  int line;
  std::string text;
  int64_t integer = 0;
  double number = 0;
};

// Ends with one kEnd token. Throws kTemplate with "name:line".
std::vector<Token> tokenize(std::string_view source, std::string_view name);

}  // namespace nibble::jinja
