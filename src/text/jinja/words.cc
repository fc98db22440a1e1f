#include "text/jinja/words.h"

#include <algorithm>

#include "text/jinja/unicode.h"
#include "text/utf8.h"

namespace nibble::jinja {
namespace {

bool ends_line(char32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

}  // namespace

std::string_view strip_spaces(std::string_view s, bool left, bool right) {
  if (left) s = strip_left(s);
  return right ? strip_right(s) : s;
}

std::string_view strip_chars(std::string_view s, std::string_view chars, bool left, bool right) {
  const std::u32string set = decode(chars);
  if (left) s = strip_left(s, set);
  return right ? strip_right(s, set) : s;
}

std::vector<std::string_view> split_at(std::string_view s, std::string_view separator,
                                       size_t max_splits) {
  std::vector<std::string_view> parts;
  size_t at = 0;
  while (parts.size() < max_splits && (at = s.find(separator)) != s.npos) {
    parts.push_back(s.substr(0, at));
    s.remove_prefix(at + separator.size());
  }
  parts.push_back(s);
  return parts;
}

std::vector<std::string_view> split_right(std::string_view s, std::string_view separator,
                                          size_t max_splits) {
  std::vector<std::string_view> parts;
  size_t at = 0;
  while (parts.size() < max_splits && (at = s.rfind(separator)) != s.npos) {
    parts.push_back(s.substr(at + separator.size()));
    s = s.substr(0, at);
  }
  parts.push_back(s);
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> lines(std::string_view s, bool keep_ends) {
  std::vector<std::string_view> parts;
  size_t begin = 0;
  for (size_t pos = 0; pos < s.size();) {
    const size_t end = pos;
    const char32_t c = utf8::next(s, pos);
    if (!ends_line(c)) continue;
    if (c == '\r' && pos < s.size() && s[pos] == '\n') ++pos;
    parts.push_back(s.substr(begin, (keep_ends ? pos : end) - begin));
    begin = pos;
  }
  if (begin < s.size()) parts.push_back(s.substr(begin));
  return parts;
}

std::string replace_text(Runtime& rt, std::string_view s, std::string_view from,
                         std::string_view to, int64_t count) {
  const auto limit = static_cast<uint64_t>(count);  // -1: as good as none
  std::string out;
  const auto put = [&](std::string_view part) {
    rt.make_bytes(part.size());
    out += part;
  };
  uint64_t done = 0;
  size_t pos = 0;
  while (done < limit) {
    if (from.empty()) {
      put(to);
      ++done;
      if (pos == s.size()) break;
      const size_t begin = pos;
      utf8::next(s, pos);
      put(s.substr(begin, pos - begin));
    } else {
      const size_t at = s.find(from, pos);
      if (at == s.npos) break;
      put(s.substr(pos, at - pos));
      put(to);
      ++done;
      pos = at + from.size();
    }
  }
  put(s.substr(pos));
  return out;
}

}  // namespace nibble::jinja
