// The parts of Python's str that depend on Unicode. Strings are valid UTF-8; positions count code
// points.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::jinja {

bool is_space(char32_t c);  // str.isspace
bool is_decimal(char32_t c);
bool is_word(char32_t c);  // a letter, mark, digit or underscore: what names are made of
bool is_cased(char32_t c);
bool is_printable(char32_t c);  // str.isprintable: what repr() leaves unescaped

std::u32string decode(std::string_view text);
std::string encode(std::u32string_view text);
size_t code_points(std::string_view text);

std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
std::string title_words(std::string_view text);  // str.title
std::string capitalize(std::string_view text);

std::string_view strip_left(std::string_view text);
std::string_view strip_right(std::string_view text);
// str.strip(chars): removes characters of the set.
std::string_view strip_left(std::string_view text, std::u32string_view chars);
std::string_view strip_right(std::string_view text, std::u32string_view chars);

std::vector<std::string_view> split_space(std::string_view text, size_t max_splits);

}  // namespace nibble::jinja
