#include "formats/scale_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "nibble/error.h"

namespace nibble {
namespace {

using enum ScaleLayout;
constexpr ScaleLayout kLayouts[] = {kLinear, kSwizzled128x4, kSwizzled8x4};

static_assert(scale_offset(kSwizzled128x4, 129, 5, 8) == 2 * 512 + 512 + 16 + 1);
static_assert(scale_bytes(kSwizzled128x4, 1, 1) == 512 && scale_bytes(kSwizzled8x4, 9, 5) == 128);

// A row-major array of the given dimensions with its axes permuted, as numpy's transpose does it.
std::vector<int64_t> permute(const std::vector<int64_t>& in, const std::vector<int64_t>& dims,
                             const std::vector<int>& axes) {
  std::vector<int64_t> strides(dims.size(), 1);
  for (size_t i = dims.size() - 1; i > 0; --i) strides[i - 1] = strides[i] * dims[i];
  std::vector<int64_t> out(in.size());
  for (size_t i = 0; i < out.size(); ++i) {
    size_t rest = i;
    int64_t from = 0;
    for (size_t a = axes.size(); a-- > 0;) {
      const auto axis = static_cast<size_t>(axes[a]);
      from += static_cast<int64_t>(rest) % dims[axis] * strides[axis];
      rest /= static_cast<size_t>(dims[axis]);
    }
    out[i] = in[static_cast<size_t>(from)];
  }
  return out;
}

// For each byte of the layout, the index row * padded_cols + col that it holds: the layouts' other
// definition, pad, view, transpose.
std::vector<int64_t> source_of_each_byte(ScaleLayout layout, int64_t rows, int64_t cols) {
  const int64_t tile = layout == kLinear ? 1 : layout == kSwizzled128x4 ? 128 : 8;
  const int64_t mp = (rows + tile - 1) / tile * tile;
  const int64_t kp = layout == kLinear ? cols : (cols + 3) / 4 * 4;
  std::vector<int64_t> index(static_cast<size_t>(mp * kp));
  std::iota(index.begin(), index.end(), 0);
  if (layout == kLinear) return index;
  if (layout == kSwizzled8x4) return permute(index, {mp / 8, 8, kp / 4, 4}, {0, 2, 1, 3});
  return permute(index, {mp / 128, 4, 32, kp / 4, 4}, {0, 3, 2, 1, 4});
}

TEST(ScaleLayout, OffsetsMatchThePadViewTransposeDefinition) {
  for (ScaleLayout layout : kLayouts) {
    for (int64_t rows = 1; rows <= 260; ++rows) {
      for (int64_t cols = 1; cols <= 20; ++cols) {
        const std::vector<int64_t> expected = source_of_each_byte(layout, rows, cols);
        ASSERT_EQ(scale_bytes(layout, rows, cols), std::ssize(expected));
        const int64_t kp = padded_scale_cols(layout, cols);
        // Every padded position too: then the map is onto, and being onto a set of its size, 1:1.
        for (int64_t row = 0; row < std::ssize(expected) / kp; ++row) {
          for (int64_t col = 0; col < kp; ++col) {
            const int64_t at = scale_offset(layout, row, col, cols);
            ASSERT_TRUE(at >= 0 && at < std::ssize(expected));
            ASSERT_EQ(expected[static_cast<size_t>(at)], row * kp + col)
                << to_string(layout) << ' ' << rows << 'x' << cols << " at " << row << ',' << col;
          }
        }
      }
    }
  }
}

// Each value is 1..251, never 0: a zero in a converted buffer is padding.
std::vector<uint8_t> sample(int64_t rows, int64_t cols) {
  std::vector<uint8_t> v(static_cast<size_t>(rows * cols));
  for (size_t i = 0; i < v.size(); ++i) v[i] = static_cast<uint8_t>(1 + i * 7 % 251);
  return v;
}

std::vector<uint8_t> convert(ScaleLayout from, ScaleLayout to, int64_t rows, int64_t cols,
                             const std::vector<uint8_t>& src) {
  std::vector<uint8_t> dst(static_cast<size_t>(scale_bytes(to, rows, cols)), 0xEE);
  convert_scales(from, to, rows, cols, src, dst);
  return dst;
}

TEST(ScaleLayout, ConvertsBothWaysWithZeroPadding) {
  for (int64_t rows = 1; rows <= 260; ++rows) {
    for (int64_t cols = 1; cols <= 20; ++cols) {
      const std::vector<uint8_t> linear = sample(rows, cols);
      for (ScaleLayout layout : kLayouts) {
        const std::vector<uint8_t> there = convert(kLinear, layout, rows, cols, linear);
        const std::vector<int64_t> source = source_of_each_byte(layout, rows, cols);
        const int64_t kp = padded_scale_cols(layout, cols);
        for (size_t i = 0; i < there.size(); ++i) {
          const int64_t row = source[i] / kp, col = source[i] % kp;
          const bool padding = row >= rows || col >= cols;
          ASSERT_EQ(there[i], padding ? 0 : linear[static_cast<size_t>(row * cols + col)]);
        }
        ASSERT_EQ(convert(layout, kLinear, rows, cols, there), linear);
      }
      const std::vector<uint8_t> wide = convert(kLinear, kSwizzled128x4, rows, cols, linear);
      const std::vector<uint8_t> narrow = convert(kSwizzled128x4, kSwizzled8x4, rows, cols, wide);
      ASSERT_EQ(narrow, convert(kLinear, kSwizzled8x4, rows, cols, linear));
      ASSERT_EQ(convert(kSwizzled8x4, kSwizzled128x4, rows, cols, narrow), wide);
    }
  }
}

TEST(ScaleLayout, DoesNotReadSourcePadding) {
  std::vector<uint8_t> src(static_cast<size_t>(scale_bytes(kSwizzled128x4, 3, 5)), 0xAB);
  for (int64_t row = 0; row < 3; ++row) {
    for (int64_t col = 0; col < 5; ++col) {
      src[static_cast<size_t>(scale_offset(kSwizzled128x4, row, col, 5))] = 1;
    }
  }
  const std::vector<uint8_t> linear = convert(kSwizzled128x4, kLinear, 3, 5, src);
  EXPECT_THAT(linear, testing::Each(1));
  const std::vector<uint8_t> clean = convert(kSwizzled128x4, kSwizzled128x4, 3, 5, src);
  EXPECT_EQ(std::accumulate(clean.begin(), clean.end(), 0), 15);
}

TEST(ScaleLayout, BytesOfAMatrixByItsFormat) {
  EXPECT_EQ(scale_bytes(WeightFormat::kNvfp4, kLinear, 3, 80), 3 * 5);
  EXPECT_EQ(scale_bytes(WeightFormat::kNvfp4, kSwizzled8x4, 3, 80), 8 * 8);
  EXPECT_EQ(scale_bytes(WeightFormat::kMxfp4, kSwizzled128x4, 129, 128), 2 * 128 * 4);
  EXPECT_THROW(scale_bytes(WeightFormat::kNvfp4, kLinear, 3, 81), Error);
  EXPECT_THROW(scale_bytes(WeightFormat::kBF16, kLinear, 3, 80), Error);
  EXPECT_THROW(scale_bytes(WeightFormat::kNvfp4, kLinear, int64_t{1} << 31, 80), Error);
}

TEST(ScaleLayout, EmptyMatricesTakeNoBytes) {
  for (ScaleLayout layout : kLayouts) {
    EXPECT_EQ(scale_bytes(layout, 0, 7), 0);
    EXPECT_EQ(scale_bytes(layout, 7, 0), 0);
    EXPECT_NO_THROW(convert_scales(kLinear, layout, 0, 7, {}, {}));
  }
}

void expect_refused(int64_t rows, int64_t cols, std::span<const uint8_t> src,
                    std::span<uint8_t> dst, const char* message) {
  try {
    convert_scales(kLinear, kSwizzled128x4, rows, cols, src, dst);
    ADD_FAILURE() << "no error: " << message;
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    EXPECT_THAT(e.what(), testing::HasSubstr(message));
  }
}

TEST(ScaleLayout, RefusesWrongSizes) {
  std::vector<uint8_t> src(20), dst(512);
  expect_refused(4, 5, std::span(src).first(19), dst, "source");
  expect_refused(4, 4, src, dst, "take 16 bytes, got 20");
  expect_refused(4, 5, src, std::span(dst).first(20), "destination");
  expect_refused(4, 4, std::span(dst).subspan(100, 16), dst, "overlap");
  expect_refused(-4, -5, src, dst, "-4 x -5");
  expect_refused(int64_t{1} << 62, 4, src, dst, "must be in [0, 2^31)");
  expect_refused(4, int64_t{1} << 31, src, dst, "must be in [0, 2^31)");
}

}  // namespace
}  // namespace nibble
