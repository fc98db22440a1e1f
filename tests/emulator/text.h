// PTX as text.
#pragma once

#include <cctype>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::emulator {

inline bool is_space(char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; }
inline bool is_name(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '$' || c == '%';
}
std::string trim(std::string_view s);
std::string without_comments(const std::string& text);
// By commas that stand in no bracket.
std::vector<std::string> split(std::string_view text);
// By spaces.
std::vector<std::string> words(const std::string& text);
size_t bytes_of_type(std::string_view type);

// `.param .align 8 .b8 name[88]` and the like.
struct Variable {
  std::string name, space;
  size_t align = 1, bytes = 0;
  bool is_extern = false;
  std::string values;  // behind the =
};
Variable variable(const std::string& text);
// Of a kernel's block, by the .maxntid behind its parameters.
uint32_t most_threads(const std::string& head);

inline size_t round_up(size_t value, size_t to) { return (value + to - 1) / to * to; }

}  // namespace nibble::emulator
