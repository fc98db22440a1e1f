#include "formats/e4m3.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace nibble {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// clang-format off
constexpr double kValues[127] = {
    0, 0.001953125, 0.00390625, 0.005859375, 0.0078125, 0.009765625, 0.01171875, 0.013671875,
    0.015625, 0.017578125, 0.01953125, 0.021484375, 0.0234375, 0.025390625, 0.02734375, 0.029296875,
    0.03125, 0.03515625, 0.0390625, 0.04296875, 0.046875, 0.05078125, 0.0546875, 0.05859375,
    0.0625, 0.0703125, 0.078125, 0.0859375, 0.09375, 0.1015625, 0.109375, 0.1171875,
    0.125, 0.140625, 0.15625, 0.171875, 0.1875, 0.203125, 0.21875, 0.234375,
    0.25, 0.28125, 0.3125, 0.34375, 0.375, 0.40625, 0.4375, 0.46875,
    0.5, 0.5625, 0.625, 0.6875, 0.75, 0.8125, 0.875, 0.9375,
    1, 1.125, 1.25, 1.375, 1.5, 1.625, 1.75, 1.875,
    2, 2.25, 2.5, 2.75, 3, 3.25, 3.5, 3.75,
    4, 4.5, 5, 5.5, 6, 6.5, 7, 7.5,
    8, 9, 10, 11, 12, 13, 14, 15,
    16, 18, 20, 22, 24, 26, 28, 30,
    32, 36, 40, 44, 48, 52, 56, 60,
    64, 72, 80, 88, 96, 104, 112, 120,
    128, 144, 160, 176, 192, 208, 224, 240,
    256, 288, 320, 352, 384, 416, 448,
};
// clang-format on

static_assert(e4m3_to_float(0x38) == 1.0f && e4m3_to_float(0xFE) == -448.0f);
static_assert(float_to_e4m3_satfinite(1.0f) == 0x38 && float_to_e4m3_satfinite(1e9f) == 0x7E);

TEST(E4m3, DecodesEveryCode) {
  for (int code = 0; code < 127; ++code) {
    EXPECT_EQ(e4m3_to_float(static_cast<uint8_t>(code)), kValues[code]);
    EXPECT_EQ(e4m3_to_float(static_cast<uint8_t>(code | 0x80)), -kValues[code]);
  }
  EXPECT_TRUE(std::signbit(e4m3_to_float(0x80)));
  EXPECT_FALSE(std::signbit(e4m3_to_float(0x00)));
  EXPECT_TRUE(std::isnan(e4m3_to_float(0x7F)));
  EXPECT_TRUE(std::isnan(e4m3_to_float(0xFF)));
}

TEST(E4m3, EncodesEveryValueToItsCode) {
  for (int code = 0; code < 256; ++code) {
    if ((code & 0x7F) == 0x7F) continue;
    EXPECT_EQ(float_to_e4m3_satfinite(e4m3_to_float(static_cast<uint8_t>(code))), code);
  }
}

TEST(E4m3, RoundsMidpointsToEven) {
  for (int code = 0; code < 126; ++code) {
    const float middle = static_cast<float>((kValues[code] + kValues[code + 1]) / 2);
    const int even = code % 2 == 0 ? code : code + 1;
    const float below = std::nextafter(middle, 0.0f), above = std::nextafter(middle, kInf);
    EXPECT_EQ(float_to_e4m3_satfinite(below), code);
    EXPECT_EQ(float_to_e4m3_satfinite(middle), even);
    EXPECT_EQ(float_to_e4m3_satfinite(above), code + 1);
    EXPECT_EQ(float_to_e4m3_satfinite(-below), code | 0x80);
    EXPECT_EQ(float_to_e4m3_satfinite(-middle), even | 0x80);
    EXPECT_EQ(float_to_e4m3_satfinite(-above), (code + 1) | 0x80);
  }
}

TEST(E4m3, Saturates) {
  for (float v : {448.0f, 448.1f, 463.9f, 464.0f, 465.0f, 480.0f, 1e38f, kInf}) {
    EXPECT_EQ(float_to_e4m3_satfinite(v), 0x7E) << v;
    EXPECT_EQ(float_to_e4m3_satfinite(-v), 0xFE) << v;
  }
}

TEST(E4m3, NanOfEitherSignIs7F) {
  for (uint32_t bits : {0x7F800001u, 0x7FC00000u, 0xFF800001u, 0xFFFFFFFFu}) {
    EXPECT_EQ(float_to_e4m3_satfinite(float_from_bits(bits)), 0x7F) << std::hex << bits;
  }
}

// Floats over the whole range, densely where e4m3 lives, against a search over all magnitudes.
TEST(E4m3, IsTheNearestCode) {
  const auto check = [](uint64_t bits) {
    const float value = float_from_bits(static_cast<uint32_t>(bits));
    if (std::isnan(value)) return true;
    const double a = std::fmin(std::fabs(double{value}), 448.0);
    int nearest = 0;
    for (int code = 1; code < 127; ++code) {
      const double d = std::fabs(a - kValues[code]), best = std::fabs(a - kValues[nearest]);
      if (d < best || (d == best && code % 2 == 0)) nearest = code;
    }
    return float_to_e4m3_satfinite(value) == (nearest | (std::signbit(value) ? 0x80 : 0));
  };
  for (uint64_t bits = 0; bits <= 0xFFFFFFFFu; bits += 20011) ASSERT_TRUE(check(bits)) << bits;
  for (uint64_t bits = float_bits(0x1p-11f); bits <= float_bits(500.0f); bits += 257) {
    ASSERT_TRUE(check(bits)) << bits;
  }
}

}  // namespace
}  // namespace nibble
