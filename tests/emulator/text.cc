#include "tests/emulator/text.h"

#include <algorithm>
#include <cstdio>

#include "tests/emulator/machine.h"

namespace nibble::emulator {

std::string trim(std::string_view s) {
  while (!s.empty() && is_space(s.front())) s.remove_prefix(1);
  while (!s.empty() && is_space(s.back())) s.remove_suffix(1);
  return std::string(s);
}

std::string without_comments(const std::string& text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const size_t slash = std::min(text.find('/', i), text.size());
    out.append(text, i, slash - i);
    i = slash;
    if (text.compare(i, 2, "//") == 0) {
      i = text.find('\n', i);
    } else if (text.compare(i, 2, "/*") == 0) {
      i = text.find("*/", i) + 2;
    } else if (i < text.size()) {
      out += text[i++];
    }
  }
  return out;
}

std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> parts;
  int depth = 0;
  std::string part;
  for (const char c : text) {
    depth += (c == '{' || c == '[' || c == '(') - (c == '}' || c == ']' || c == ')');
    if (c == ',' && depth == 0) {
      parts.push_back(trim(part));
      part.clear();
    } else {
      part += c;
    }
  }
  if (!trim(part).empty()) parts.push_back(trim(part));
  return parts;
}

std::vector<std::string> words(const std::string& text) {
  std::vector<std::string> out;
  std::string word;
  for (const char c : text + " ") {
    if (!is_space(c)) {
      word += c;
    } else if (!word.empty()) {
      out.push_back(std::move(word));
      word.clear();
    }
  }
  return out;
}

size_t bytes_of_type(std::string_view type) {
  if (type == ".pred") return 0;
  if (type.ends_with("128")) return 16;
  if (type.ends_with("64")) return 8;
  if (type.ends_with("32")) return 4;
  if (type.ends_with("16")) return 2;
  if (type.ends_with("8")) return 1;
  throw Fault("unknown type " + std::string(type));
}

uint32_t most_threads(const std::string& head) {
  uint32_t x = 1024, y = 1, z = 1;
  const size_t at = head.find(".maxntid");
  if (at != head.npos) std::sscanf(head.c_str() + at, ".maxntid %u, %u, %u", &x, &y, &z);
  return x * y * z;
}

Variable variable(const std::string& text) {
  Variable v;
  std::string declaration = text;
  if (const size_t equals = text.find('='); equals != std::string::npos) {
    declaration = text.substr(0, equals);
    v.values = trim(std::string_view(text).substr(equals + 1));
  }
  const std::vector<std::string> all = words(declaration);
  size_t element = 1;
  for (size_t i = 0; i + 1 < all.size(); ++i) {
    if (all[i] == ".extern") {
      v.is_extern = true;
    } else if (all[i] == ".align") {
      v.align = std::stoul(all[++i]);
    } else if (all[i] == ".param" || all[i] == ".shared" || all[i] == ".local" ||
               all[i] == ".global" || all[i] == ".const") {
      v.space = all[i].substr(1);
    } else if (all[i][0] == '.' && all[i] != ".visible" && all[i] != ".weak" && all[i] != ".ptr") {
      element = bytes_of_type(all[i]);
    }
  }
  v.align = std::max(v.align, element);
  v.name = all.back();
  size_t count = 1;
  if (const size_t bracket = v.name.find('['); bracket != std::string::npos) {
    const std::string number = v.name.substr(bracket + 1);
    count = number[0] == ']' ? 0 : std::stoul(number);
    v.name.resize(bracket);
  }
  v.bytes = element * count;
  return v;
}

// Finds the functions and variables of a module.
void Module::read() {
  text_ = without_comments(text_);
  size_t at = text_.find(".address_size");
  at = text_.find('\n', at);
  while (at < text_.size()) {
    if (is_space(text_[at])) {
      ++at;
      continue;
    }
    const size_t end = text_.find_first_of("{;=", at);
    if (end == std::string::npos) break;
    const std::string head = trim(std::string_view(text_).substr(at, end - at));
    const bool is_function =
        head.find(".entry") != std::string::npos || head.find(".func") != std::string::npos;
    if (!is_function || text_[end] == ';') {
      const size_t stop = text_.find(';', at);
      const std::string text = text_.substr(at, stop - at);
      if (!is_function) variables_.push_back(text);
      at = stop + 1;
      continue;
    }
    size_t close = end;
    for (int depth = 0; close < text_.size(); ++close) {
      depth += (text_[close] == '{') - (text_[close] == '}');
      if (depth == 0) break;
    }
    // The name stands before the list of parameters, which is the last one of the head.
    std::string name;
    if (const size_t entry = head.find(".entry"); entry != std::string::npos) {
      const size_t open = std::min(head.find('(', entry), head.size());
      name = trim(std::string_view(head).substr(entry + 6, open - entry - 6));
      name = words(name)[0];
    } else {
      std::string rest = trim(std::string_view(head).substr(head.find(".func") + 5));
      if (rest[0] == '(') rest = trim(std::string_view(rest).substr(rest.find(')') + 1));
      name = words(rest.substr(0, rest.find('(')))[0];
    }
    bodies_[name] = {head, text_.substr(end + 1, close - end - 1)};
    at = close + 1;
  }
  text_.clear();
}

}  // namespace nibble::emulator
