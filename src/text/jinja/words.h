// Cutting and replacing text, as Python's str does; shared by methods and filters.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/runtime.h"

namespace nibble::jinja {

std::string_view strip_spaces(std::string_view s, bool left, bool right);
std::string_view strip_chars(std::string_view s, std::string_view chars, bool left, bool right);

std::vector<std::string_view> split_at(std::string_view s, std::string_view separator,
                                       size_t max_splits);
std::vector<std::string_view> split_right(std::string_view s, std::string_view separator,
                                          size_t max_splits);
std::vector<std::string_view> lines(std::string_view s, bool keep_ends);  // str.splitlines

// count < 0: everywhere. An empty `from` stands between any two characters and at both ends.
std::string replace_text(Runtime& rt, std::string_view s, std::string_view from,
                         std::string_view to, int64_t count);

}  // namespace nibble::jinja
