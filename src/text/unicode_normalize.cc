#include <utf8proc.h>

#include <algorithm>

#include "base/check.h"
#include "text/normalizer.h"
#include "text/utf8.h"

namespace nibble::text {
namespace {

// Below it a character keeps its form, whatever stands behind it.
char32_t first_affected(UnicodeForm form) { return form == UnicodeForm::kNfc ? 0x300 : 0x80; }

// Not utf8proc_map(): it orders combining marks by a quadratic sort, so that a megabyte of them
// hangs.
void normalize_run(std::string_view run, UnicodeForm form, std::string& out) {
  const bool compatible = form == UnicodeForm::kNfkc || form == UnicodeForm::kNfkd;
  const bool compose = form == UnicodeForm::kNfc || form == UnicodeForm::kNfkc;
  auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                                (compatible ? UTF8PROC_COMPAT : 0));
  std::vector<utf8proc_int32_t> chars;
  chars.reserve(run.size());
  for (size_t pos = 0; pos < run.size();) {
    const auto c = static_cast<utf8proc_int32_t>(utf8::next(run, pos));
    utf8proc_int32_t parts[32];  // the longest decomposition, of U+FDFA, has 18
    int last_class = 0;
    const auto n = utf8proc_decompose_char(c, parts, std::size(parts), options, &last_class);
    NIBBLE_ASSERT(n >= 0 && n <= static_cast<utf8proc_ssize_t>(std::size(parts)));
    chars.insert(chars.end(), parts, parts + n);
  }

  const auto order = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
  for (auto it = chars.begin(); it != chars.end();) {
    const auto marks = std::find_if(it, chars.end(), [&](auto c) { return order(c) != 0; });
    it = std::find_if(marks, chars.end(), [&](auto c) { return order(c) == 0; });
    std::stable_sort(marks, it, [&](auto a, auto b) { return order(a) < order(b); });
  }

  auto length = static_cast<utf8proc_ssize_t>(chars.size());
  if (compose && length > 0) {
    options = static_cast<utf8proc_option_t>(options | UTF8PROC_COMPOSE);
    length = utf8proc_normalize_utf32(chars.data(), length, options);
    NIBBLE_ASSERT(length >= 0);
  }
  for (utf8proc_ssize_t i = 0; i < length; ++i) utf8::append(out, static_cast<char32_t>(chars[i]));
}

}  // namespace

std::string unicode_normalize(std::string text, UnicodeForm form) {
  const char32_t affected = first_affected(form);
  std::string out;
  size_t copied = 0;    // text before it is in `out`
  size_t previous = 0;  // the last unaffected character: what comes next may compose with it
  for (size_t pos = 0; pos < text.size();) {
    size_t behind = pos;
    if (utf8::next(text, behind) < affected) {
      previous = pos;
      pos = behind;
      continue;
    }
    size_t end = behind;
    while (end < text.size()) {
      size_t next = end;
      if (utf8::next(text, next) < affected) break;
      end = next;
    }
    const size_t begin = std::max(previous, copied);
    out.append(text, copied, begin - copied);
    normalize_run(std::string_view(text).substr(begin, end - begin), form, out);
    copied = previous = pos = end;
  }
  if (copied == 0) return text;
  out.append(text, copied);
  return out;
}

}  // namespace nibble::text
