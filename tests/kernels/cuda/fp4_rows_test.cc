// The rows layout, packed on the host and read back byte by byte; what it refuses.
#include "kernels/cuda/fp4_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "formats/e2m1.h"
#include "formats/e4m3.h"
#include "formats/ue8m0.h"

namespace nibble::cuda {
namespace {

using testing::HasSubstr;

struct Weight {
  std::vector<uint8_t> codes, scales;
  WeightTensor tensor;

  Weight(WeightFormat format, int64_t n, int64_t k)
      : codes(static_cast<size_t>(n * k / 2)),
        scales(static_cast<size_t>(n * k / block_size(format))) {
    std::mt19937 random(static_cast<uint32_t>(n + k));
    for (uint8_t& c : codes) c = static_cast<uint8_t>(random());
    for (uint8_t& s : scales) s = static_cast<uint8_t>(random());  // negative ones and NaN too
    tensor.format = format;
    tensor.n = n;
    tensor.k = k;
    tensor.codes = codes.data();
    tensor.scales = scales.data();
    tensor.segments = {{0, 0.5f}, {128, 3.0f}};
  }
  int64_t row_scales() const { return tensor.k / block_size(tensor.format); }
};

std::vector<uint8_t> pack(const WeightTensor& t) {
  const Fp4RowsPlaces at(t.format, t.n, t.k, t.segments.size());
  std::vector<uint8_t> packed(static_cast<size_t>(at.end));
  for (int64_t i = 0; i < t.n; ++i) pack_fp4_row(t, i, packed.data());
  pack_fp4_segment_scales(t, packed.data());
  return packed;
}

// Sizes with a tail of rows and a tail of scale columns.
class Fp4Rows : public testing::TestWithParam<WeightFormat> {
 protected:
  Fp4Rows() : weight_(GetParam(), 200, 224), packed_(pack(weight_.tensor)) {}

  Weight weight_;
  std::vector<uint8_t> packed_;
  Fp4RowsPlaces at_{GetParam(), 200, 224, 2};
};

TEST_P(Fp4Rows, ScalesAreTheSwizzledOnesWithoutSign) {
  const int64_t cols = weight_.row_scales();
  std::vector<uint8_t> expected = weight_.scales;
  if (GetParam() == WeightFormat::kNvfp4) {
    for (uint8_t& s : expected) s &= 0x7F;
  }
  std::vector<uint8_t> swizzled(
      static_cast<size_t>(scale_bytes(ScaleLayout::kSwizzled128x4, 200, cols)));
  convert_scales(ScaleLayout::kLinear, ScaleLayout::kSwizzled128x4, 200, cols, expected, swizzled);
  ASSERT_LE(at_.scales + static_cast<int64_t>(swizzled.size()), at_.segment_scales);
  EXPECT_EQ(std::memcmp(packed_.data() + at_.scales, swizzled.data(), swizzled.size()), 0);
}

TEST_P(Fp4Rows, CodesAreTheCheckpointsRowsWithTheScalesSigns) {
  EXPECT_EQ(at_.scales % 256, 0);
  EXPECT_EQ(at_.segment_scales % 256, 0);
  const int64_t size = block_size(GetParam());
  for (int64_t byte = 0; byte < 200 * 112; ++byte) {
    const bool negative = GetParam() == WeightFormat::kNvfp4 &&
                          (weight_.scales[static_cast<size_t>(byte * 2 / size)] & 0x80) != 0;
    ASSERT_EQ(packed_[static_cast<size_t>(byte)],
              weight_.codes[static_cast<size_t>(byte)] ^ (negative ? 0x88 : 0))
        << byte;
  }
}

TEST_P(Fp4Rows, DecodesToWhatTheTensorSays) {
  const int64_t size = block_size(GetParam()), cols = weight_.row_scales();
  const int64_t of_tile = scale_bytes(ScaleLayout::kSwizzled128x4, 128, cols);
  int nans = 0;
  for (int64_t i = 0; i < 200; ++i) {
    std::vector<float> row(224);
    unpack_fp4_row(GetParam(), i, 224, packed_.data() + i * 112,
                   packed_.data() + at_.scales + i / 128 * of_tile, row.data());
    for (int64_t j = 0; j < 224; ++j) {
      const uint8_t scale = weight_.scales[static_cast<size_t>(i * cols + j / size)];
      const uint8_t byte = weight_.codes[static_cast<size_t>((i * 224 + j) / 2)];
      const auto code = static_cast<uint8_t>(j % 2 == 0 ? byte & 15 : byte >> 4);
      const float value =
          e2m1_to_float(code) *
          (GetParam() == WeightFormat::kNvfp4 ? e4m3_to_float(scale) : ue8m0_to_float(scale));
      if (std::isnan(value)) {
        ++nans;
        ASSERT_TRUE(std::isnan(row[static_cast<size_t>(j)]));
      } else {
        ASSERT_EQ(row[static_cast<size_t>(j)], value) << i << ", " << j;
      }
    }
  }
  EXPECT_GT(nans, 0);
}

TEST_P(Fp4Rows, SegmentsKeepTheirScalesAndPlaces) {
  float values[2];
  std::memcpy(values, packed_.data() + at_.segment_scales, sizeof(values));
  const bool global = GetParam() == WeightFormat::kNvfp4;
  EXPECT_EQ(values[0], global ? 0.5f : 1.0f);
  EXPECT_EQ(values[1], global ? 3.0f : 1.0f);

  PreparedWeight w;
  static_cast<WeightTensor&>(w) = weight_.tensor;
  w.codes = packed_.data();
  w.scales = packed_.data() + at_.scales;
  ASSERT_EQ(num_fp4_segments(w), 2);
  const Fp4Segment first = fp4_segment(w, 0), second = fp4_segment(w, 1);
  EXPECT_EQ(first.begin, 0);
  EXPECT_EQ(first.end, 128);
  EXPECT_EQ(second.begin, 128);
  EXPECT_EQ(second.end, 200);
  EXPECT_EQ(second.codes, w.codes + 128 * 112);
  EXPECT_EQ(second.scales,
            w.scales + scale_bytes(ScaleLayout::kSwizzled128x4, 128, weight_.row_scales()));
  EXPECT_EQ(reinterpret_cast<const uint8_t*>(fp4_segment_scales(w)),
            packed_.data() + at_.segment_scales);
  w.segments.clear();
  EXPECT_EQ(num_fp4_segments(w), 1);
  EXPECT_EQ(fp4_segment(w, 0).end, 200);
}

INSTANTIATE_TEST_SUITE_P(Formats, Fp4Rows,
                         testing::Values(WeightFormat::kNvfp4, WeightFormat::kMxfp4),
                         [](const auto& format) { return std::string(to_string(format.param)); });

TEST(Fp4RowsSupport, NamesTheRule) {
  WeightTensor t;
  t.format = WeightFormat::kNvfp4;
  t.n = 256;
  t.k = 64;
  t.segments = {{0, 1.0f}, {128, 2.0f}};
  EXPECT_TRUE(can_hold_rows(t));
  t.segments[1].row_begin = 64;
  EXPECT_THAT(can_hold_rows(t).reason, HasSubstr("multiples of 128 rows, found row 64"));
  t.segments.resize(1);
  t.k = 48;
  EXPECT_THAT(can_hold_rows(t).reason, HasSubstr("k must be a multiple of 32, found 48"));
  t.format = WeightFormat::kF8;
  EXPECT_THAT(can_hold_rows(t).reason, HasSubstr("nvfp4 and mxfp4, found fp8"));
}

TEST(Fp4RowsSupport, ChipsWithFp4TensorCores) {
  WeightTensor t;
  t.format = WeightFormat::kMxfp4;
  t.n = t.k = 64;
  DeviceInfo device;
  EXPECT_THAT(can_prepare_rows(t, device).reason, HasSubstr("CUDA device only"));
  device.kind = DeviceKind::kCuda;
  for (const int sm : {100, 103, 120, 121}) {
    device.sm = sm;
    EXPECT_TRUE(can_prepare_rows(t, device));
  }
  for (const int sm : {80, 90, 110}) {
    device.sm = sm;
    EXPECT_THAT(can_prepare_rows(t, device).reason, HasSubstr("found sm_" + std::to_string(sm)));
  }
}

}  // namespace
}  // namespace nibble::cuda
