#include "checkpoint/pattern.h"

#include <algorithm>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/check.h"

namespace nibble {
namespace {

// Matches the set that starts after the '[' at pattern[at]; moves `at` past its ']'. Python's rule:
// a ']' that comes first is a member, and without a closing ']' the '[' stands for itself.
bool match_set(std::string_view pattern, size_t& at, char c) {
  size_t i = at;
  const bool negated = i < pattern.size() && pattern[i] == '!';
  if (negated) ++i;
  const size_t close = pattern.find(']', i + 1);
  if (close == std::string_view::npos || i >= pattern.size()) return c == '[';
  bool found = false;
  while (i < close) {
    if (i + 2 < close && pattern[i + 1] == '-') {
      found |= pattern[i] <= c && c <= pattern[i + 2];
      i += 3;
    } else {
      found |= pattern[i++] == c;
    }
  }
  at = close + 1;
  return found != negated;
}

}  // namespace

std::vector<std::string_view> split_path(std::string_view module) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0; begin <= module.size();) {
    const size_t end = std::min(module.find('.', begin), module.size());
    parts.push_back(module.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

// One remembered star is enough: a later star can always take over from an earlier one. So the
// time is at most the product of the lengths.
bool glob_match(std::string_view pattern, std::string_view text) {
  size_t p = 0, t = 0;
  size_t star = std::string_view::npos, star_text = 0;
  while (t < text.size()) {
    bool matched = false;
    size_t next = p + 1;
    if (p < pattern.size()) {
      if (pattern[p] == '*') {
        star = p++;
        star_text = t;
        continue;
      }
      matched = pattern[p] == '?'   ? true
                : pattern[p] == '[' ? match_set(pattern, next, text[t])
                                    : pattern[p] == text[t];
    }
    if (matched) {
      p = next;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++star_text;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

Regex::Regex(const std::string& pattern, std::string_view what) : pattern_(pattern) {
  constexpr size_t kMaxPattern = 16384;
  NIBBLE_CHECK(pattern.size() <= kMaxPattern, ErrorCode::kCheckpoint,
               "{}: a regex of {} bytes, expected at most {}", what, pattern.size(), kMaxPattern);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   PCRE2_ANCHORED, &error, &offset, nullptr);
  if (code == nullptr) {
    PCRE2_UCHAR message[256] = {};
    pcre2_get_error_message(error, message, sizeof message);
    fail(ErrorCode::kCheckpoint, "{}: the regex \"{}\" is malformed at byte {}: {}", what, pattern,
         offset, reinterpret_cast<const char*>(message));
  }
  code_.reset(code, pcre2_code_free);
}

bool Regex::match(std::string_view text) const {
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
      pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
  const std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> context(
      pcre2_match_context_create(nullptr), pcre2_match_context_free);
  pcre2_set_match_limit(context.get(), 1'000'000);
  pcre2_set_depth_limit(context.get(), 10'000);
  pcre2_set_heap_limit(context.get(), 16 << 10);  // KiB
  const int result = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, 0,
                                 data.get(), context.get());
  // With a too small vector of groups, a match returns 0.
  if (result >= 0) return true;
  NIBBLE_CHECK(result == PCRE2_ERROR_NOMATCH, ErrorCode::kCheckpoint,
               "the regex \"{}\" gives up on \"{}\": too many steps", pattern_, text);
  return false;
}

}  // namespace nibble
