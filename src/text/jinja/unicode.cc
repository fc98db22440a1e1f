#include "text/jinja/unicode.h"

#include <utf8proc.h>

#include "text/utf8.h"

namespace nibble::jinja {
namespace {

utf8proc_category_t category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

// Characters whose upper case is more than one character; utf8proc maps one to one.
struct Special {
  char32_t from;
  std::u32string_view upper, title;
};
constexpr Special kSpecial[] = {
    {U'\u00DF', U"SS", U"Ss"},
    {U'\u0149', U"\u02BCN", U"\u02BCN"},
    {U'\u01F0', U"J\u030C", U"J\u030C"},
    {U'\u0390', U"\u0399\u0308\u0301", U"\u0399\u0308\u0301"},
    {U'\u03B0', U"\u03A5\u0308\u0301", U"\u03A5\u0308\u0301"},
    {U'\u0587', U"\u0535\u0552", U"\u0535\u0582"},
    {U'\uFB00', U"FF", U"Ff"},
    {U'\uFB01', U"FI", U"Fi"},
    {U'\uFB02', U"FL", U"Fl"},
    {U'\uFB03', U"FFI", U"Ffi"},
    {U'\uFB04', U"FFL", U"Ffl"},
    {U'\uFB05', U"ST", U"St"},
    {U'\uFB06', U"ST", U"St"},
};

void append_upper(std::string& out, char32_t c) {
  for (const Special& s : kSpecial)
    if (s.from == c) {
      out += encode(s.upper);
      return;
    }
  utf8::append(out, static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))));
}

void append_title(std::string& out, char32_t c) {
  for (const Special& s : kSpecial)
    if (s.from == c) {
      out += encode(s.title);
      return;
    }
  utf8::append(out, static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c))));
}

bool is_case_ignorable(char32_t c) {
  switch (category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
      return true;
    default:
      return c == '\'' || c == '.' || c == ':' || c == 0xB7 || c == 0x2019;
  }
}

// A capital sigma at the end of a word becomes the final form.
bool is_final_sigma(std::u32string_view text, size_t i) {
  size_t before = i;
  while (before > 0 && is_case_ignorable(text[before - 1])) --before;
  if (before == 0 || !is_cased(text[before - 1])) return false;
  size_t after = i + 1;
  while (after < text.size() && is_case_ignorable(text[after])) ++after;
  return after == text.size() || !is_cased(text[after]);
}

void append_lower(std::string& out, std::u32string_view text, size_t i) {
  const char32_t c = text[i];
  if (c == 0x130)
    out += "i\xCC\x87";
  else if (c == 0x3A3)
    utf8::append(out, is_final_sigma(text, i) ? 0x3C2 : 0x3C3);
  else
    utf8::append(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
}

template <class InSet>
std::string_view trim_left(std::string_view text, InSet in_set) {
  size_t pos = 0;
  while (pos < text.size()) {
    size_t next = pos;
    if (!in_set(utf8::next(text, next))) break;
    pos = next;
  }
  return text.substr(pos);
}

template <class InSet>
std::string_view trim_right(std::string_view text, InSet in_set) {
  while (!text.empty()) {
    size_t begin = text.size() - 1;
    while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
    size_t pos = begin;
    if (!in_set(utf8::next(text, pos))) break;
    text = text.substr(0, begin);
  }
  return text;
}

}  // namespace

bool is_space(char32_t c) {
  return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool is_decimal(char32_t c) { return category(c) == UTF8PROC_CATEGORY_ND; }

bool is_word(char32_t c) {
  if (c < 0x80) return (c >= '0' && c <= '9') || (c | 0x20) - 'a' < 26 || c == '_';
  const auto cat = category(c);
  return cat >= UTF8PROC_CATEGORY_LU && cat <= UTF8PROC_CATEGORY_ND;
}

bool is_cased(char32_t c) {
  const auto cat = category(c);
  return cat == UTF8PROC_CATEGORY_LU || cat == UTF8PROC_CATEGORY_LL ||
         cat == UTF8PROC_CATEGORY_LT || c == 0xAA || c == 0xBA;
}

bool is_printable(char32_t c) {
  if (c == ' ') return true;
  switch (category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

std::u32string decode(std::string_view text) {
  std::u32string out;
  for (size_t pos = 0; pos < text.size();) out += utf8::next(text, pos);
  return out;
}

std::string encode(std::u32string_view text) {
  std::string out;
  for (const char32_t c : text) utf8::append(out, c);
  return out;
}

size_t code_points(std::string_view text) {
  size_t n = 0;
  for (const char c : text) n += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return n;
}

std::string to_upper(std::string_view text) {
  std::string out;
  for (size_t pos = 0; pos < text.size();) append_upper(out, utf8::next(text, pos));
  return out;
}

std::string to_lower(std::string_view text) {
  const std::u32string chars = decode(text);
  std::string out;
  for (size_t i = 0; i < chars.size(); ++i) append_lower(out, chars, i);
  return out;
}

std::string title_words(std::string_view text) {
  const std::u32string chars = decode(text);
  std::string out;
  bool inside = false;
  for (size_t i = 0; i < chars.size(); ++i) {
    if (inside)
      append_lower(out, chars, i);
    else
      append_title(out, chars[i]);
    inside = is_cased(chars[i]);
  }
  return out;
}

std::string capitalize(std::string_view text) {
  const std::u32string chars = decode(text);
  std::string out;
  for (size_t i = 0; i < chars.size(); ++i) {
    if (i == 0)
      append_title(out, chars[i]);
    else
      append_lower(out, chars, i);
  }
  return out;
}

std::string_view strip_left(std::string_view text) { return trim_left(text, is_space); }
std::string_view strip_right(std::string_view text) { return trim_right(text, is_space); }
std::string_view strip_left(std::string_view text, std::u32string_view chars) {
  return trim_left(text, [&](char32_t c) { return chars.find(c) != chars.npos; });
}
std::string_view strip_right(std::string_view text, std::u32string_view chars) {
  return trim_right(text, [&](char32_t c) { return chars.find(c) != chars.npos; });
}

std::vector<std::string_view> split_space(std::string_view text, size_t max_splits) {
  std::vector<std::string_view> parts;
  text = strip_left(text);
  while (!text.empty()) {
    if (parts.size() == max_splits) {
      parts.push_back(strip_right(text));
      break;
    }
    size_t end = 0;
    while (end < text.size()) {
      size_t next = end;
      if (is_space(utf8::next(text, next))) break;
      end = next;
    }
    parts.push_back(text.substr(0, end));
    text = strip_left(text.substr(end));
  }
  return parts;
}

}  // namespace nibble::jinja
