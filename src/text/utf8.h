// UTF-8 without a table: everything past the door of src/text is valid UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace nibble::utf8 {

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// What the bytes at the front of a string are.
struct Scan {
  size_t length = 0;   // bytes of the character, or of the maximal invalid subpart; 0 at the end
  bool valid = false;  // a whole character
  bool truncated = false;  // the string ended inside what may still become a character
};
Scan scan(std::string_view text);

// The character at `pos` of valid UTF-8; moves `pos` behind it.
char32_t next(std::string_view text, size_t& pos);

void append(std::string& out, char32_t c);

// True where every byte belongs to a whole character.
bool is_valid(std::string_view text);

// Appends `text` with each maximal invalid subpart replaced by U+FFFD (Unicode 14, section 3.9;
// what Python's bytes.decode(errors="replace") does). With `held`, an unfinished character at the
// end is left there instead of being replaced.
void append_valid(std::string& out, std::string_view text, std::string* held = nullptr);

}  // namespace nibble::utf8
