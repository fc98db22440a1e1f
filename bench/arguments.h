// Lists as the benchmarks' arguments have them.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::bench {

// "a,b"
inline std::vector<std::string> split(std::string_view list) {
  std::vector<std::string> parts;
  for (std::string_view rest = list; !rest.empty();) {
    const size_t comma = std::min(rest.find(','), rest.size());
    parts.emplace_back(rest.substr(0, comma));
    rest.remove_prefix(std::min(comma + 1, rest.size()));
  }
  return parts;
}
// "1,16". Throws what std::stoi throws.
inline std::vector<int> numbers_of(std::string_view list) {
  std::vector<int> all;
  for (const std::string& m : split(list)) all.push_back(std::stoi(m));
  return all;
}

}  // namespace nibble::bench
