// Compares an implementation's output with the reference's, and says where it is off.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace nibble::cases {

// Element i may be off by bound(i). NaN matches NaN and Inf the same Inf, nothing else. Returns ""
// or e.g. "12 of 330 outside; worst at [3, 17]: 1.25, expected 1.5, off by 0.25 where 1e-06 is
// allowed". `cols`: of a row, for the coordinates.
std::string compare(std::span<const float> found, std::span<const float> expected, int64_t cols,
                    const std::function<double(int64_t)>& bound);

// Bytes must be equal.
std::string compare_bytes(std::span<const uint8_t> found, std::span<const uint8_t> expected,
                          const char* what);

}  // namespace nibble::cases
