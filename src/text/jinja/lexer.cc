#include "text/jinja/lexer.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/check.h"
#include "text/jinja/unicode.h"
#include "text/utf8.h"

namespace nibble::jinja {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// The bytes of the name at the front; 0 where there is none.
size_t name_length(std::string_view text) {
  size_t length = 0;
  while (length < text.size()) {
    size_t next = length;
    if (!is_word(utf8::next(text, next)) || (length == 0 && is_digit(text[0]))) break;
    length = next;
  }
  return length;
}

// As Jinja does: every kind of line end is one \n, and a single one at the very end is dropped.
std::string normalize_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  Lexer(std::string source, std::string_view name) : source_(std::move(source)), name_(name) {}

  std::vector<Token> run() {
    while (pos_ < source_.size()) text();
    push(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  template <class... Args>
  [[noreturn]] void error(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorCode::kTemplate, "{}:{}: {}", name_, line_,
         fmt::format(format, std::forward<Args>(args)...));
  }

  std::string_view rest() const { return std::string_view(source_).substr(pos_); }
  bool at(std::string_view what) const { return rest().starts_with(what); }
  void push(TokenKind kind, std::string text) {
    tokens_.push_back({kind, line_, std::move(text), 0, 0});
  }
  void advance(size_t n) {
    const auto begin = source_.begin() + static_cast<ptrdiff_t>(pos_);
    line_ += static_cast<int>(std::count(begin, begin + static_cast<ptrdiff_t>(n), '\n'));
    pos_ += n;
  }
  void skip_space() {
    size_t n = 0;
    const std::string_view r = rest();
    while (n < r.size()) {
      size_t next = n;
      if (!is_space(utf8::next(r, next))) break;
      n = next;
    }
    advance(n);
  }

  // Literal text up to the next tag, then the tag.
  void text() {
    const size_t begin = pos_;
    size_t tag = begin;
    while ((tag = source_.find('{', tag)) != std::string::npos) {
      const char next = tag + 1 < source_.size() ? source_[tag + 1] : '\0';
      if (next == '{' || next == '%' || next == '#') break;
      ++tag;
    }
    if (tag == std::string::npos) {
      push(TokenKind::kText, source_.substr(begin));
      advance(source_.size() - begin);
      return;
    }
    const char type = source_[tag + 1];
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    std::string_view literal = std::string_view(source_).substr(begin, tag - begin);
    if (sign == '-') {
      literal = strip_right(literal);
    } else if (sign != '+' && type != '{') {  // lstrip_blocks: a line's indent before a block
      const size_t newline = literal.rfind('\n');
      const size_t line_begin = newline == std::string_view::npos ? 0 : newline + 1;
      const bool own_line = line_begin > 0 || begin == 0 || source_[begin - 1] == '\n';
      if (own_line && strip_right(literal.substr(line_begin)).empty())
        literal = literal.substr(0, line_begin);
    }
    if (!literal.empty()) push(TokenKind::kText, std::string(literal));
    advance(tag - begin);
    const size_t open = 2 + (sign == '-' || sign == '+');
    if (type == '#') return comment(open);
    const bool block = type == '%';
    push(block ? TokenKind::kBlockBegin : TokenKind::kVariableBegin, "");
    advance(open);
    code(block);
  }

  void comment(size_t open) {
    const size_t end = source_.find("#}", pos_ + open);
    if (end == std::string::npos) error("a comment ({{#) has no end");
    const char sign = end > pos_ + open ? source_[end - 1] : '\0';
    advance(end + 2 - pos_);
    if (sign == '-')
      skip_space();
    else if (sign != '+' && at("\n"))
      advance(1);
  }

  // Everything between {{ and }} or {% and %}.
  void code(bool block) {
    const std::string_view close = block ? "%}" : "}}";
    const int first_line = line_;
    brackets_.clear();
    while (true) {
      skip_space();
      if (pos_ >= source_.size())
        error("the {} opened in line {} has no end", block ? "{%" : "{{", first_line);
      if (brackets_.empty()) {
        const char c = source_[pos_];
        const bool sign = (c == '-' || (block && c == '+')) && rest().substr(1).starts_with(close);
        if (sign || at(close)) {
          push(block ? TokenKind::kBlockEnd : TokenKind::kVariableEnd, "");
          advance(close.size() + sign);
          if (sign && c == '-')
            skip_space();
          else if (!sign && block && at("\n"))
            advance(1);
          return;
        }
      }
      token();
    }
  }

  void token() {
    const char c = source_[pos_];
    if (const size_t n = name_length(rest()); n > 0) {
      push(TokenKind::kName, std::string(rest().substr(0, n)));
      return advance(n);
    }
    if (is_digit(c)) return number();
    if (c == '\'' || c == '"') return string(c);
    for (const std::string_view op : {"**", "//", "==", "!=", ">=", "<="})
      if (at(op)) {
        push(TokenKind::kOperator, std::string(op));
        return advance(op.size());
      }
    if (std::string_view("+-/*%~[](){}<>=.:|,;").find(c) == std::string_view::npos)
      error("unexpected character '{}'", rest().substr(0, utf8::scan(rest()).length));
    if (c == '(' || c == '[' || c == '{') brackets_ += c == '(' ? ')' : c == '[' ? ']' : '}';
    if (c == ')' || c == ']' || c == '}') {
      if (brackets_.empty() || brackets_.back() != c) error("unexpected '{}'", c);
      brackets_.pop_back();
    }
    push(TokenKind::kOperator, std::string(1, c));
    advance(1);
  }

  void number() {
    std::string digits;
    const std::string_view r = rest();
    size_t n = 0;
    const auto take_digits = [&] {
      while (n < r.size() &&
             (is_digit(r[n]) || (r[n] == '_' && n + 1 < r.size() && is_digit(r[n + 1]) && n > 0 &&
                                 is_digit(r[n - 1]))))
        if (r[n++] != '_') digits += r[n - 1];
    };
    take_digits();
    bool real = false;
    // "a.0.1" is two subscripts, not a float.
    const bool after_dot = !tokens_.empty() && tokens_.back().kind == TokenKind::kOperator &&
                           tokens_.back().text == ".";
    if (!after_dot) {
      if (n + 1 < r.size() && r[n] == '.' && is_digit(r[n + 1])) {
        real = true;
        digits += r[n++];
        take_digits();
      }
      size_t exponent = n + 1;
      if (exponent < r.size() && (r[exponent] == '+' || r[exponent] == '-')) ++exponent;
      if (n < r.size() && (r[n] == 'e' || r[n] == 'E') && exponent < r.size() &&
          is_digit(r[exponent])) {
        real = true;
        digits += r.substr(n, exponent - n);
        n = exponent;
        take_digits();
      }
    }
    Token token{real ? TokenKind::kFloat : TokenKind::kInt, line_, digits, 0, 0};
    if (real) {
      token.number = std::strtod(digits.c_str(), nullptr);
    } else {
      if (n < r.size() && digits == "0" && std::string_view("xXoObB").find(r[n]) != r.npos)
        error("numbers that are not decimal are not supported");
      const auto [end, status] =
          std::from_chars(digits.data(), digits.data() + digits.size(), token.integer);
      if (status != std::errc() || end != digits.data() + digits.size())
        error("the number {} does not fit in 64 bits", digits);
      if (digits.size() > 1 && digits[0] == '0' && token.integer != 0)
        error("the number {} has leading zeros", digits);
    }
    tokens_.push_back(std::move(token));
    advance(n);
  }

  void string(char quote) {
    const std::string_view r = rest();
    std::string out;
    size_t n = 1;
    while (true) {
      if (n >= r.size()) error("a string has no closing {}", quote);
      if (r[n] == quote) break;
      if (r[n] != '\\')
        out += r[n++];
      else
        n = escape(r, n + 1, out);
    }
    push(TokenKind::kString, std::move(out));
    advance(n + 1);
  }

  // Python's string escapes; returns the position behind the one at r[n].
  size_t escape(std::string_view r, size_t n, std::string& out) const {
    if (n >= r.size()) error("a string ends in a backslash");
    const char c = r[n++];
    static constexpr std::string_view kFrom = "abfnrtv\\'\"", kTo = "\a\b\f\n\r\t\v\\'\"";
    if (const size_t i = kFrom.find(c); i != kFrom.npos) {
      out += kTo[i];
    } else if (c == 'x' || c == 'u' || c == 'U') {
      n = code_point(r, n, c == 'x' ? 2 : c == 'u' ? 4 : 8, 16, out);
    } else if (c >= '0' && c <= '7') {
      size_t digits = 1;
      while (digits < 3 && n - 1 + digits < r.size() && r[n - 1 + digits] >= '0' &&
             r[n - 1 + digits] <= '7')
        ++digits;
      n = code_point(r, n - 1, digits, 8, out);
    } else if (c == 'N') {
      error("the string escape \\N is not supported");
    } else if (c != '\n') {  // a backslash before a line end joins the lines
      out += '\\';
      out += c;
    }
    return n;
  }

  size_t code_point(std::string_view r, size_t n, size_t digits, int base, std::string& out) const {
    uint32_t c = 0;
    const std::string_view text = r.substr(std::min(n, r.size()), digits);
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), c, base);
    if (text.size() != digits || status != std::errc() || end != text.data() + digits ||
        c > 0x10FFFF || (c >= 0xD800 && c < 0xE000))
      error("a string has a broken escape");
    utf8::append(out, c);
    return n + digits;
  }

  const std::string source_;
  const std::string_view name_;
  size_t pos_ = 0;
  int line_ = 1;
  std::string brackets_;  // the closing brackets still due
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source, std::string_view name) {
  NIBBLE_CHECK(utf8::is_valid(source), ErrorCode::kTemplate, "{}:1: the template is not UTF-8",
               name);
  return Lexer(normalize_newlines(source), name).run();
}

}  // namespace nibble::jinja
