#include "bench/quantize_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

namespace nibble::bench {
namespace {

using Json = nlohmann::ordered_json;

// Geometric means over all rows that `of` holds for; null where a row was not timed.
template <class Of>
Json summary_row(const std::string& what, const Json& rows, const Of& of) {
  double ratio = 0, pdl = 0, sustained = 0, worst = 0, gbps = 0;
  int count = 0, sustained_count = 0;
  for (const Json& r : rows) {
    if (!of(r)) continue;
    const double us = r["quantize_us"], copy = r["copy_us"];
    ratio += std::log(us / copy);
    pdl += std::log(r["pdl_us"].get<double>() / copy);
    if (r.contains("sustained_us")) {
      sustained += std::log(r["sustained_us"].get<double>() / r["sustained_copy_us"].get<double>());
      ++sustained_count;
    }
    worst = std::max(worst, us / copy);
    gbps = std::max(gbps, r["gbps"].get<double>());
    ++count;
  }
  return {{"what", what},
          {"sizes", count},
          {"time / copy", std::exp(ratio / count)},
          {"worst", worst},
          {"dependent launch", std::exp(pdl / count)},
          {"sustained / copy",
           sustained_count == count ? Json(std::exp(sustained / count)) : Json(nullptr)},
          {"best GB/s", gbps}};
}

}  // namespace

Json quantize_summary(const Json& rows, size_t plain_sizes, int64_t usual_k) {
  Json out = Json::array();
  const Json sizes(rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(plain_sizes));
  const auto elements = [](const Json& r) { return r["m"].get<int64_t>() * r["k"].get<int64_t>(); };
  const auto add = [&](const char* what, int from, int to) {
    out.push_back(summary_row(what, sizes, [&](const Json& r) {
      return elements(r) >= int64_t{1} << from && elements(r) < int64_t{1} << to;
    }));
  };
  add("all sizes", 0, 62);
  add("below 2^21 elements", 0, 21);
  add("2^21 to 2^23", 21, 23);
  add("2^23 to 2^25", 23, 25);
  add("2^25 to 2^28", 25, 28);
  add("2^28 and more", 28, 62);
  for (size_t i = plain_sizes; i < rows.size(); ++i) {
    const Json& r = rows[i];
    if (r["m"] != 65536) continue;
    std::string type = r["src"];
    for (char& c : type) c = static_cast<char>(std::tolower(c));
    const std::string what = fmt::format(
        "{} to {}, {}{}{}", type, r["format"].get<std::string>(), r["layout"].get<std::string>(),
        r["input"] == "plain" ? "" : ", " + r["input"].get<std::string>(),
        r["k"] == usual_k ? "" : fmt::format(", k = {}", r["k"].get<int64_t>()));
    out.push_back(summary_row(what, Json::array({r}), [](const Json&) { return true; }));
  }
  return out;
}

}  // namespace nibble::bench
