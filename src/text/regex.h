// The regular expressions of tokenizer.json, run by PCRE2 with UTF, UCP and JIT.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace nibble::text {

// For a class in a PCRE pattern: \w of the Rust crate `regex`, by which `tokenizers` tells words
// where no pattern of the file does.
inline constexpr char kRustWord[] = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}";

class Regex {
 public:
  // Throws kTokenizer, "<where>: ...", where PCRE2 refuses the pattern.
  Regex(std::string_view pcre_pattern, std::string_view where);
  // The same for a pattern in the dialect of tokenizer.json; see translate_pattern().
  static Regex from_tokenizer_json(std::string_view pattern, std::string_view where);

  struct Match {
    size_t begin = 0, end = 0;
  };
  // The first match at or behind `from` in valid UTF-8. Throws kTokenizer where the pattern needs
  // more steps or memory than a multiple of the text's length.
  std::optional<Match> search(std::string_view text, size_t from) const;

 private:
  std::shared_ptr<void> code_;  // immutable, so threads may share it
  std::string where_;
};

// tokenizer.json's patterns are written for Oniguruma (Ruby syntax), whose dialect differs from
// PCRE's in silent ways: what \s and \w hold, \h, \v, nested classes, `&&`, {,n}, x{n}+. This gives
// the PCRE pattern of the same meaning, and throws kTokenizer for constructs that have no sure
// counterpart instead of letting PCRE read them its own way.
std::string translate_pattern(std::string_view pattern, std::string_view where);

}  // namespace nibble::text
