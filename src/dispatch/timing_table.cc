#include "dispatch/timing_table.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <string_view>
#include <tuple>

#include "base/check.h"
#include "base/mapped_file.h"

namespace nibble {
namespace {

enum Column { kDevice, kN, kK, kM, kBackend, kTflops, kColumns };
constexpr std::array<std::string_view, kColumns> kNames = {"device", "n",       "k",
                                                           "m",      "backend", "tflops"};
// A table of every shape, device and backend there is stays far below.
constexpr size_t kMaxBytes = size_t{16} << 20;
constexpr size_t kShownBytes = 40;  // of a field that is wrong

std::vector<std::string_view> split(std::string_view line) {
  std::vector<std::string_view> fields;
  for (;;) {
    const size_t comma = line.find(',');
    fields.push_back(line.substr(0, comma));
    if (comma == line.npos) return fields;
    line.remove_prefix(comma + 1);
  }
}

std::string_view shown(std::string_view field) { return field.substr(0, kShownBytes); }

template <class Number>
Number positive(std::string_view field, Column column, Number max, const std::string& where) {
  Number value{};
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
  const bool whole = error == std::errc() && end == field.data() + field.size();
  // Written so that a NaN fails.
  NIBBLE_CHECK(whole && value > 0 && value <= max, ErrorCode::kInvalidArgument,
               "{}: column '{}': expected a {} above 0, found '{}'", where, kNames[column],
               std::is_integral_v<Number> ? "whole number of at most 31 bits" : "finite number",
               shown(field));
  return value;
}

std::string name(std::string_view field, Column column, const std::string& where) {
  NIBBLE_CHECK(!field.empty(), ErrorCode::kInvalidArgument,
               "{}: column '{}': expected a name, found nothing", where, kNames[column]);
  return std::string(field);
}

struct Header {
  std::array<size_t, kColumns> at{};
  size_t fields = 0;
};

Header read_header(std::string_view line, const std::string& where) {
  const std::vector<std::string_view> fields = split(line);
  Header header{.fields = fields.size()};
  for (int c = 0; c < kColumns; ++c) {
    const auto found = std::find(fields.begin(), fields.end(), kNames[c]);
    NIBBLE_CHECK(found != fields.end(), ErrorCode::kInvalidArgument,
                 "{}: expected the columns {}, found no '{}' in '{}'", where,
                 fmt::join(kNames, ","), kNames[c], line.substr(0, 2 * kShownBytes));
    header.at[c] = static_cast<size_t>(found - fields.begin());
  }
  return header;
}

Timing read_row(std::string_view line, const Header& header, const std::string& where) {
  const std::vector<std::string_view> fields = split(line);
  NIBBLE_CHECK(fields.size() == header.fields, ErrorCode::kInvalidArgument,
               "{}: expected {} fields like the first line, found {}", where, header.fields,
               fields.size());
  constexpr int64_t kMaxSize = std::numeric_limits<int32_t>::max();
  Timing t;
  t.where = where;
  t.device = name(fields[header.at[kDevice]], kDevice, where);
  t.backend = name(fields[header.at[kBackend]], kBackend, where);
  t.n = positive<int64_t>(fields[header.at[kN]], kN, kMaxSize, where);
  t.k = positive<int64_t>(fields[header.at[kK]], kK, kMaxSize, where);
  t.m = positive<int64_t>(fields[header.at[kM]], kM, kMaxSize, where);
  t.tflops = positive<double>(fields[header.at[kTflops]], kTflops,
                              std::numeric_limits<double>::max(), where);
  return t;
}

void name_kernels(std::vector<Timing>& timings) {
  std::set<std::string> apart;  // devices whose table lists the small kernels by themselves
  for (const Timing& t : timings) {
    if (t.backend == kTrtllmSmall) apart.insert(t.device);
  }
  for (Timing& t : timings) t.kernel = kernel_name(t.backend, t.m, apart.contains(t.device));
}

}  // namespace

std::string_view kernel_name(std::string_view backend, int64_t m, bool small_apart) {
  return backend == kTrtllm && m <= kTrtllmSmallRows && !small_apart ? kTrtllmSmall : backend;
}

double Timing::us() const {
  return 2e-6 * static_cast<double>(n) * static_cast<double>(k) * static_cast<double>(m) / tflops;
}

void check_unique(const std::vector<Timing>& timings) {
  using Key = std::tuple<std::string_view, int64_t, int64_t, int64_t, std::string_view>;
  std::map<Key, const Timing*> seen;
  for (const Timing& t : timings) {
    const auto [first, added] = seen.emplace(Key{t.device, t.n, t.k, t.m, t.backend}, &t);
    NIBBLE_CHECK(added, ErrorCode::kInvalidArgument,
                 "{}: expected one row for {} n={} k={} m={} {}, found another at {}", t.where,
                 t.device, t.n, t.k, t.m, t.backend, first->second->where);
  }
}

std::vector<Timing> read_timings(const std::filesystem::path& path) {
  const MappedFile file(path);
  NIBBLE_CHECK(file.bytes().size() <= kMaxBytes, ErrorCode::kInvalidArgument,
               "{}: expected a table of at most {} bytes, found {}", path.string(), kMaxBytes,
               file.bytes().size());
  return parse_timings({reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()},
                       path.string());
}

std::vector<Timing> parse_timings(std::string_view text, const std::string& name) {
  Header header;
  std::vector<Timing> timings;
  for (int64_t line_number = 1; !text.empty(); ++line_number) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == text.npos ? text.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    const std::string where = fmt::format("{}:{}", name, line_number);
    if (line_number == 1) {
      header = read_header(line, where);
    } else if (!line.empty()) {
      timings.push_back(read_row(line, header, where));
    }
  }
  NIBBLE_CHECK(header.fields > 0, ErrorCode::kInvalidArgument,
               "{}: expected a table with the columns {}, found an empty file", name,
               fmt::join(kNames, ","));
  check_unique(timings);
  std::erase_if(timings, [](const Timing& t) { return t.backend == kBaselineBackend; });
  NIBBLE_CHECK(!timings.empty(), ErrorCode::kInvalidArgument,
               "{}: expected timings of an FP4 backend, found none", name);
  name_kernels(timings);
  return timings;
}

}  // namespace nibble
