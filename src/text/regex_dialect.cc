#include "base/check.h"
#include "text/regex.h"

namespace nibble::text {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

class Translator {
 public:
  Translator(std::string_view in, std::string_view where) : in_(in), where_(where) {}

  std::string run() {
    while (pos_ < in_.size()) {
      switch (in_[pos_]) {
        case '\\':
          escape(false);
          break;
        case '[':
          char_class();
          break;
        case '(':
          group();
          break;
        case '{':
          repeat();
          break;
        default:
          out_ += in_[pos_++];
      }
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    fail(ErrorCode::kTokenizer, "{}: the pattern \"{}\" has {} at byte {}, which is not supported",
         where_, in_, what, pos_);
  }

  char peek(size_t ahead) const { return pos_ + ahead < in_.size() ? in_[pos_ + ahead] : '\0'; }
  bool looking_at(std::string_view s) const { return in_.substr(pos_).starts_with(s); }
  void copy(size_t n) {
    out_.append(in_.substr(pos_, n));
    pos_ += n;
  }
  void emit(std::string_view s, size_t consumed) {
    out_ += s;
    pos_ += consumed;
  }

  void escape(bool in_class) {
    // Oniguruma's \w, with its Latin-1 digits; PCRE's has no marks and no connector but "_".
    constexpr std::string_view kWord =
        "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\xB2\\xB3\\xB9\\xBC-\\xBE";
    const char c = peek(1);
    switch (c) {
      case 's':  // PCRE's \s also holds U+180E
        return emit("\\p{White_Space}", 2);
      case 'S':
        return emit("\\P{White_Space}", 2);
      case 'd':
        return emit("\\p{Nd}", 2);
      case 'D':
        return emit("\\P{Nd}", 2);
      case 'w':
        return in_class ? emit(kWord, 2) : emit(fmt::format("[{}]", kWord), 2);
      case 'W':
        if (in_class) refuse("\\W in a class");
        return emit(fmt::format("[^{}]", kWord), 2);
      case 'v':
        return emit("\\x{b}", 2);
      case 'n':
      case 'r':
      case 't':
      case 'f':
        return copy(2);
      case 'A':
      case 'z':
        if (in_class) refuse("an anchor in a class");
        return copy(2);
      case 'p':
      case 'P':
        return property();
      case 'x':
        return hex(2, peek(2) == '{');
      case 'u':
        return hex(2, false);
      default:
        if (c == '\0' || is_letter(c) || is_digit(c)) refuse("an escape");
        copy(2);
    }
  }

  void property() {
    size_t n = 2;
    if (peek(n) != '{') refuse("a property without braces");
    if (peek(++n) == '^') ++n;
    const size_t name = n;
    while (is_letter(peek(n)) || peek(n) == '_') ++n;
    if (n == name || peek(n) != '}') refuse("a property");
    copy(n + 1);
  }

  // \xH, \xHH, \x{H...}, \uHHHH
  void hex(size_t n, bool braced) {
    const size_t max = braced ? 6 : peek(1) == 'u' ? 4 : 2;
    if (braced) ++n;
    const size_t first = n;
    while (n - first < max && is_hex(peek(n))) ++n;
    const size_t digits = n - first;
    if (digits == 0 || (peek(1) == 'u' && digits != 4)) refuse("an escape");
    if (braced && peek(n++) != '}') refuse("an escape");
    emit(fmt::format("\\x{{{}}}", in_.substr(pos_ + first, digits)), n);
  }

  void group() {
    if (peek(1) == '*') refuse("a verb");
    if (peek(1) == '?') {
      for (std::string_view known : {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"}) {
        if (looking_at(known)) return copy(known.size());
      }
      refuse("a group");
    }
    copy(1);
  }

  void repeat() {
    size_t n = 1;
    while (is_digit(peek(n))) ++n;
    if (n == 1) {
      if (peek(1) == ',') refuse("a repeat without its lower bound");
      return emit("\\{", 1);
    }
    const bool exact = peek(n) == '}';
    if (peek(n) == ',') {
      do ++n;
      while (is_digit(peek(n)));
    }
    if (peek(n) != '}') return emit("\\{", 1);
    const char suffix = peek(n + 1);
    if (suffix == '+' || (exact && suffix == '?')) refuse("a suffix behind a repeat");
    copy(n + 1);
  }

  void char_class() {
    copy(1);
    if (peek(0) == '^') copy(1);
    if (peek(0) == ']') refuse("] as the first of a class");
    while (peek(0) != ']') {
      if (pos_ >= in_.size()) refuse("a class without its end");
      if (peek(0) == '[') refuse("a class in a class");
      if (looking_at("&&")) refuse("&& in a class");
      if (peek(0) == '\\') {
        escape(true);
      } else {
        copy(1);
      }
    }
    copy(1);
  }

  std::string_view in_;
  std::string_view where_;
  size_t pos_ = 0;
  std::string out_;
};

}  // namespace

std::string translate_pattern(std::string_view pattern, std::string_view where) {
  NIBBLE_CHECK(pattern.find('\0') == std::string_view::npos, ErrorCode::kTokenizer,
               "{}: the pattern holds a null character", where);
  return Translator(pattern, where).run();
}

}  // namespace nibble::text
