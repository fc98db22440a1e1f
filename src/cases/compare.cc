#include "cases/compare.h"

#include <fmt/format.h>

#include <cmath>

namespace nibble::cases {

std::string compare(std::span<const float> found, std::span<const float> expected, int64_t cols,
                    const std::function<double(int64_t)>& bound) {
  int64_t outside = 0;
  int64_t worst = -1;
  double worst_excess = 0;
  double worst_bound = 0;
  for (int64_t i = 0; i < static_cast<int64_t>(expected.size()); ++i) {
    const double allowed = bound(i);
    const double error = std::fabs(static_cast<double>(found[i]) - expected[i]);
    bool inside = error <= allowed;
    if (!std::isfinite(expected[i])) {
      inside = std::isnan(expected[i]) ? std::isnan(found[i]) : found[i] == expected[i];
    }
    if (inside) continue;
    ++outside;
    // A NaN where a number belongs is worse than any distance.
    const double excess = std::isfinite(error) ? error / std::max(allowed, 1e-300) : INFINITY;
    if (worst < 0 || excess > worst_excess) {
      worst = i;
      worst_excess = excess;
      worst_bound = allowed;
    }
  }
  if (outside == 0) return {};
  return fmt::format(
      "{} of {} outside; worst at [{}, {}]: {}, expected {}, off by {:.3g} where {:.3g} is allowed",
      outside, expected.size(), worst / cols, worst % cols, found[worst], expected[worst],
      std::fabs(static_cast<double>(found[worst]) - expected[worst]), worst_bound);
}

std::string compare_bytes(std::span<const uint8_t> found, std::span<const uint8_t> expected,
                          const char* what) {
  int64_t different = 0;
  int64_t first = -1;
  for (int64_t i = 0; i < static_cast<int64_t>(expected.size()); ++i) {
    if (found[i] == expected[i]) continue;
    ++different;
    if (first < 0) first = i;
  }
  if (different == 0) return {};
  return fmt::format("{}: {} of {} bytes differ; first at {}: 0x{:02x}, expected 0x{:02x}", what,
                     different, expected.size(), first, found[first], expected[first]);
}

}  // namespace nibble::cases
