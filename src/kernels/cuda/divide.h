// Division rounded up; and by a number that the host knows, as a multiplication and a shift. A
// kernel's own integer division takes some 25 instructions that wait for each other: a dozen of
// them before a block's first load cost the wgmma GEMM 0.5 us.
#pragma once

#include <bit>
#include <cstdint>

#include "base/host_device.h"

namespace nibble::cuda {

// a / b, rounded up; b > 0.
NIBBLE_HD constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Divisor {
  int value = 1;

  Divisor() = default;
  // d >= 1. The magic numbers are those of Granlund and Montgomery, "Division by invariant integers
  // using multiplication", figure 4.1.
  explicit Divisor(int d)
      : value(d), shift_(std::bit_width(static_cast<uint32_t>(d) - 1)), multiplier_(magic(d)) {}

  // x / value of x >= 0.
  NIBBLE_HD int divide(int x) const {
    const auto high = static_cast<uint32_t>(uint64_t{static_cast<uint32_t>(x)} * multiplier_ >> 32);
    return static_cast<int>((high + static_cast<uint32_t>(x)) >> shift_);
  }

 private:
  static uint32_t magic(int d) {
    const auto divisor = static_cast<uint64_t>(d);
    const uint64_t power = uint64_t{1} << std::bit_width(divisor - 1);
    return static_cast<uint32_t>(((power - divisor) << 32) / divisor + 1);
  }

  int shift_ = 0;
  uint32_t multiplier_ = 1;
};

}  // namespace nibble::cuda
