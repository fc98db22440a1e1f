#include "cases/case_file.h"

#include <charconv>
#include <sstream>

#include "base/check.h"

namespace nibble::cases {
namespace {

constexpr auto kBad = ErrorCode::kInvalidArgument;

// The value whose name this is, of an enum that counts from 0 to `last`.
template <class Enum>
Enum by_name(std::string_view name, Enum last, std::string_view column) {
  for (int i = 0; i <= static_cast<int>(last); ++i) {
    const std::string_view known = to_string(static_cast<Enum>(i));
    if (known == name) return static_cast<Enum>(i);
  }
  fail(kBad, "case: column {}: unknown value '{}'", column, name);
}

template <class T>
T parse(const std::string& text, std::string_view column) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  NIBBLE_CHECK(error == std::errc() && end == text.data() + text.size(), kBad,
               "case: column {}: expected a number, found '{}'", column, text);
  return value;
}

std::vector<std::string> split(const std::string& line) {
  std::istringstream words(line.substr(0, line.find('#')));
  std::vector<std::string> all;
  for (std::string word; words >> word;) all.push_back(word);
  return all;
}

}  // namespace

const std::string& CaseRow::text(std::string_view column) const {
  for (const auto& [name, value] : values) {
    if (name == column) return value;
  }
  fail(kBad, "case: no column {} in '{}'", column, id());
}

int64_t CaseRow::integer(std::string_view column) const {
  return parse<int64_t>(text(column), column);
}
float CaseRow::number(std::string_view column) const { return parse<float>(text(column), column); }

WeightFormat CaseRow::format(std::string_view column) const {
  return by_name(text(column), WeightFormat::kF8, column);
}

ActivationMode CaseRow::activation(std::string_view column) const {
  for (const ActivationMode mode : kActivationModes) {
    if (to_string(mode) == text(column)) return mode;
  }
  fail(kBad, "case: column {}: unknown value '{}'", column, text(column));
}

DType CaseRow::dtype(std::string_view column) const {
  const std::string& name = text(column);
  if (name == "fp32") return DType::kF32;
  if (name == "fp16") return DType::kF16;
  if (name == "bf16") return DType::kBF16;
  if (name == "e4m3") return DType::kF8E4M3;
  fail(kBad, "case: column {}: unknown value '{}'", column, name);
}

ScaleLayout CaseRow::layout(std::string_view column) const {
  return by_name(text(column), ScaleLayout::kSwizzled8x4, column);
}

std::string CaseRow::id() const {
  std::string all;
  for (const auto& [name, value] : values) {
    all += fmt::format("{}{}={}", all.empty() ? "" : " ", name, value);
  }
  return all;
}

uint32_t CaseRow::seed() const {
  uint32_t hash = 2166136261u;  // FNV-1a
  for (const char c : id()) hash = (hash ^ static_cast<uint8_t>(c)) * 16777619u;
  return hash;
}

std::vector<CaseRow> parse_cases(std::string_view text) {
  std::istringstream lines{std::string(text)};
  std::vector<std::string> columns;
  std::vector<CaseRow> rows;
  for (std::string line; std::getline(lines, line);) {
    const std::vector<std::string> words = split(line);
    if (words.empty()) continue;
    if (columns.empty()) {
      columns = words;
      continue;
    }
    NIBBLE_CHECK(words.size() == columns.size(), kBad, "case '{}': expected {} values, found {}",
                 line, columns.size(), words.size());
    CaseRow row;
    for (size_t i = 0; i < words.size(); ++i) row.values.emplace_back(columns[i], words[i]);
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<CaseRow> builtin_cases(std::string_view name) {
  for (const CaseText& file : case_texts()) {
    if (file.name == name) return parse_cases(file.text);
  }
  fail(ErrorCode::kInternal, "no case file {}.txt was built in", name);
}

}  // namespace nibble::cases
