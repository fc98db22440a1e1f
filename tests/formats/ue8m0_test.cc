#include "formats/ue8m0.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace nibble {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
using enum Mxfp4ScaleRule;

static_assert(ue8m0_to_float(127) == 1.0f && ue8m0_to_float(0) == 0x1p-127f);
static_assert(ue8m0_from_amax(6.0f, kCeil) == 127 && ue8m0_from_amax(6.5f, kCeil) == 128);

TEST(Ue8m0, DecodesEveryCode) {
  for (int b = 0; b < 255; ++b) {
    EXPECT_EQ(ue8m0_to_float(static_cast<uint8_t>(b)), std::ldexp(1.0f, b - 127));
    EXPECT_EQ(ue8m0_reciprocal(static_cast<uint8_t>(b)), std::ldexp(1.0f, 127 - b));
  }
  EXPECT_TRUE(std::isnan(ue8m0_to_float(255)));
  EXPECT_TRUE(std::isnan(ue8m0_reciprocal(255)));
}

// The three definitions, with the rounding spelled out over one binade at every exponent.
TEST(Ue8m0, FollowsTheRules) {
  const auto clamp = [](int k) { return std::min(std::max(k + 127, 0), 254); };
  for (int e = -126; e <= 127; ++e) {
    const float one = std::ldexp(1.0f, e), middle = std::ldexp(1.5f, e),
                high = std::ldexp(1.75f, e);
    const float last = std::nextafter(std::ldexp(2.0f, e), 0.0f);
    for (float amax : {one, std::nextafter(one, kInf), middle, std::nextafter(middle, kInf),
                       std::nextafter(high, 0.0f), high, last}) {
      EXPECT_EQ(ue8m0_from_amax(amax, kFloor), clamp(e - 2)) << amax;
      EXPECT_EQ(ue8m0_from_amax(amax, kCeil), clamp(amax <= middle ? e - 2 : e - 1)) << amax;
      EXPECT_EQ(ue8m0_from_amax(amax, kEven), clamp(amax < high ? e - 2 : e - 1)) << amax;
    }
  }
}

TEST(Ue8m0, CeilNeverClipsAndIsTheLeastThatDoesNot) {
  for (uint64_t bits = 1; bits < 0x7F800000u; bits += 40009) {
    const float amax = float_from_bits(static_cast<uint32_t>(bits));
    const int b = ue8m0_from_amax(amax, kCeil);
    ASSERT_LE(double{amax}, 6 * std::ldexp(1.0, b - 127)) << amax;
    if (b > 0) {
      ASSERT_GT(double{amax}, 6 * std::ldexp(1.0, b - 128)) << amax;
    }
  }
}

TEST(Ue8m0, EdgeValues) {
  for (Mxfp4ScaleRule rule : {kCeil, kFloor, kEven}) {
    EXPECT_EQ(ue8m0_from_amax(0.0f, rule), 0);
    EXPECT_EQ(ue8m0_from_amax(std::numeric_limits<float>::denorm_min(), rule), 0);
    EXPECT_EQ(ue8m0_from_amax(0x1p-127f, rule), 0);
    EXPECT_EQ(ue8m0_from_amax(0x1p-125f, rule), 0);
    EXPECT_EQ(ue8m0_from_amax(0x1p-124f, rule), 1);
    EXPECT_EQ(ue8m0_from_amax(kInf, rule), 0xFE);
    EXPECT_EQ(ue8m0_from_amax(std::numeric_limits<float>::quiet_NaN(), rule), 0xFF);
  }
  const float max = std::numeric_limits<float>::max();
  EXPECT_EQ(ue8m0_from_amax(max, kFloor), 252);
  EXPECT_EQ(ue8m0_from_amax(max, kCeil), 253);
  EXPECT_EQ(ue8m0_from_amax(max, kEven), 253);
}

}  // namespace
}  // namespace nibble
