#include "formats/scale_layout.h"

#include <algorithm>
#include <functional>

#include "base/check.h"

namespace nibble {
namespace {

constexpr int64_t kLimit = int64_t{1} << 31;  // so that no size or offset overflows

void check_size(const char* which, ScaleLayout layout, int64_t rows, int64_t cols, size_t bytes) {
  const int64_t expected = scale_bytes(layout, rows, cols);
  NIBBLE_CHECK(bytes == static_cast<size_t>(expected), ErrorCode::kInvalidArgument,
               "{} of a scale conversion: {} x {} scales in layout {} take {} bytes, got {}", which,
               rows, cols, to_string(layout), expected, bytes);
}

}  // namespace

int64_t scale_bytes(WeightFormat format, ScaleLayout layout, int64_t m, int64_t k) {
  const int64_t block = block_size(format);
  NIBBLE_CHECK(block != 0, ErrorCode::kInvalidArgument,
               "scale_bytes: format must be nvfp4 or mxfp4, found {}", to_string(format));
  NIBBLE_CHECK(
      m >= 0 && m < kLimit && k >= 0 && k < kLimit && k % block == 0, ErrorCode::kInvalidArgument,
      "scale_bytes: m and k must be in [0, 2^31), k a multiple of {}, found {} x {}", block, m, k);
  return scale_bytes(layout, m, k / block);
}

void convert_scales(ScaleLayout from, ScaleLayout to, int64_t rows, int64_t cols,
                    std::span<const uint8_t> src, std::span<uint8_t> dst) {
  NIBBLE_CHECK(rows >= 0 && rows < kLimit && cols >= 0 && cols < kLimit,
               ErrorCode::kInvalidArgument,
               "scale conversion: rows and columns must be in [0, 2^31), got {} x {}", rows, cols);
  check_size("source", from, rows, cols, src.size());
  check_size("destination", to, rows, cols, dst.size());
  if (dst.empty()) return;
  const std::less_equal<const uint8_t*> not_after;
  NIBBLE_CHECK(not_after(src.data() + src.size(), dst.data()) ||
                   not_after(dst.data() + dst.size(), src.data()),
               ErrorCode::kInvalidArgument, "scale conversion: source and destination overlap");

  std::ranges::fill(dst, uint8_t{0});
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t col = 0; col < cols; ++col) {
      dst[scale_offset(to, row, col, cols)] = src[scale_offset(from, row, col, cols)];
    }
  }
}

}  // namespace nibble
