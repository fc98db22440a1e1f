// tests/cases/<op>.txt: a line of column names, then a case a line; `#` begins a comment.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "nibble/types.h"

namespace nibble::cases {

struct CaseText {
  std::string_view name;  // "gemm"
  std::string_view text;
};
std::span<const CaseText> case_texts();     // every file, as built into the library
std::span<const CaseText> timing_tables();  // bench/data/nvfp4_gemm_*.csv, the same way

// One line. The getters throw kInvalidArgument, naming the column, where it is missing or
// malformed.
struct CaseRow {
  std::vector<std::pair<std::string, std::string>> values;  // column, value

  const std::string& text(std::string_view column) const;
  int64_t integer(std::string_view column) const;
  float number(std::string_view column) const;
  WeightFormat format(std::string_view column) const;
  ActivationMode activation(std::string_view column) const;
  DType dtype(std::string_view column) const;  // "bf16"
  ScaleLayout layout(std::string_view column) const;

  std::string id() const;  // "m=1 n=16 ..."
  uint32_t seed() const;   // from the id: the same data in every run and on every machine
};

// Throws kInvalidArgument where a line has more or fewer values than the first has names.
std::vector<CaseRow> parse_cases(std::string_view text);

// The rows of the built-in file of this name.
std::vector<CaseRow> builtin_cases(std::string_view name);

}  // namespace nibble::cases
