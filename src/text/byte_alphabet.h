// GPT-2's spelling of bytes as printable characters (openai/gpt-2, src/encoder.py): byte-level
// vocabularies are written in it. Printable Latin-1 bytes stand for themselves, the 68 others are
// U+0100, U+0101, ... in order.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "text/utf8.h"

namespace nibble::text {

constexpr bool stands_for_itself(uint32_t byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) ||
         (byte >= 0xAE && byte <= 0xFF);
}

inline constexpr auto kByteToChar = [] {
  std::array<char16_t, 256> table{};
  char16_t next = 0x100;
  for (uint32_t b = 0; b < 256; ++b) {
    table[b] = stands_for_itself(b) ? static_cast<char16_t>(b) : next++;
  }
  return table;
}();

// By character; -1 where it stands for no byte.
inline constexpr auto kCharToByte = [] {
  std::array<int16_t, 0x144> table{};
  table.fill(-1);
  for (int16_t b = 0; b < 256; ++b) table[kByteToChar[static_cast<size_t>(b)]] = b;
  return table;
}();

inline void append_spelled(std::string& out, std::string_view bytes) {
  for (const char c : bytes) utf8::append(out, kByteToChar[static_cast<uint8_t>(c)]);
}

// The bytes that `token` spells, or itself where one of its characters is not of the alphabet (an
// added token such as "<|im start|>").
inline std::string unspell(std::string_view token) {
  std::string bytes;
  for (size_t pos = 0; pos < token.size();) {
    const char32_t c = utf8::next(token, pos);
    if (c >= kCharToByte.size() || kCharToByte[c] < 0) return std::string(token);
    bytes.push_back(static_cast<char>(kCharToByte[c]));
  }
  return bytes;
}

}  // namespace nibble::text
