#include "formats/e2m1.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace nibble {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

constexpr float kValues[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                               -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

struct Midpoint {
  float value;
  uint8_t below, at, above;
};
constexpr Midpoint kMidpoints[] = {{0.25f, 0, 0, 1}, {0.75f, 1, 2, 2}, {1.25f, 2, 2, 3},
                                   {1.75f, 3, 4, 4}, {2.5f, 4, 4, 5},  {3.5f, 5, 6, 6},
                                   {5.0f, 6, 6, 7}};

static_assert(e2m1_to_float(0x7) == 6.0f && e2m1_to_float(0xF) == -6.0f);
static_assert(float_to_e2m1(2.5f) == 0x4 && float_to_e2m1(-0.0f) == 0x8);
static_assert(round_to_e2m1(3.5f) == 4.0f);

TEST(E2m1, DecodesEveryCode) {
  for (int code = 0; code < 16; ++code) {
    const float value = e2m1_to_float(static_cast<uint8_t>(code));
    EXPECT_EQ(value, kValues[code]);
    EXPECT_EQ(std::signbit(value), code >= 8);
    EXPECT_EQ(e2m1_to_float(static_cast<uint8_t>(code | 0xF0)), value);
  }
}

TEST(E2m1, EncodesEveryValueToItsCode) {
  for (int code = 0; code < 16; ++code) EXPECT_EQ(float_to_e2m1(kValues[code]), code);
}

TEST(E2m1, RoundsMidpointsToEven) {
  for (const Midpoint& m : kMidpoints) {
    const float below = std::nextafter(m.value, 0.0f);
    const float above = std::nextafter(m.value, kInf);
    EXPECT_EQ(float_to_e2m1(below), m.below) << m.value;
    EXPECT_EQ(float_to_e2m1(m.value), m.at) << m.value;
    EXPECT_EQ(float_to_e2m1(above), m.above) << m.value;
    EXPECT_EQ(float_to_e2m1(-below), m.below | 8) << m.value;
    EXPECT_EQ(float_to_e2m1(-m.value), m.at | 8) << m.value;
    EXPECT_EQ(float_to_e2m1(-above), m.above | 8) << m.value;
  }
}

TEST(E2m1, Saturates) {
  for (float v : {6.0f, 7.0f, 8.5f, 1e30f, std::numeric_limits<float>::max(), kInf}) {
    EXPECT_EQ(float_to_e2m1(v), 0x7) << v;
    EXPECT_EQ(float_to_e2m1(-v), 0xF) << v;
  }
}

TEST(E2m1, KeepsTheSignOfZero) {
  const float tiny = std::numeric_limits<float>::denorm_min();
  EXPECT_EQ(float_to_e2m1(0.0f), 0x0);
  EXPECT_EQ(float_to_e2m1(-0.0f), 0x8);
  EXPECT_EQ(float_to_e2m1(tiny), 0x0);
  EXPECT_EQ(float_to_e2m1(-tiny), 0x8);
}

TEST(E2m1, NanOfEitherSignBecomesPlusSix) {
  for (uint32_t bits : {0x7F800001u, 0x7FC00000u, 0x7FFFFFFFu, 0xFF800001u, 0xFFC00000u}) {
    EXPECT_EQ(float_to_e2m1(float_from_bits(bits)), 0x7) << std::hex << bits;
  }
}

// Every 1021st float, against a search over the eight magnitudes.
TEST(E2m1, IsTheNearestCode) {
  for (uint64_t bits = 0; bits <= 0xFFFFFFFFu; bits += 1021) {
    const float value = float_from_bits(static_cast<uint32_t>(bits));
    if (std::isnan(value)) continue;
    int nearest = 0;
    for (int code = 1; code < 8; ++code) {
      const double d = std::fabs(std::fabs(double{value}) - kValues[code]);
      const double best = std::fabs(std::fabs(double{value}) - kValues[nearest]);
      // Beyond the largest value both distances may round alike; the larger code is nearer.
      if (d < best || (d == best && (code % 2 == 0 || std::fabs(value) > 6.0f))) nearest = code;
    }
    ASSERT_EQ(float_to_e2m1(value), nearest | (std::signbit(value) ? 8 : 0)) << value;
  }
}

TEST(E2m1, RoundToE2m1AgreesWithTheCodes) {
  for (uint64_t bits = 0; bits <= 0x7F800000u; bits += 509) {
    const float a = float_from_bits(static_cast<uint32_t>(bits));
    ASSERT_EQ(round_to_e2m1(a), e2m1_to_float(float_to_e2m1(a))) << a;
  }
  for (const Midpoint& m : kMidpoints) {
    EXPECT_EQ(round_to_e2m1(std::nextafter(m.value, 0.0f)), kValues[m.below]);
    EXPECT_EQ(round_to_e2m1(m.value), kValues[m.at]);
    EXPECT_EQ(round_to_e2m1(std::nextafter(m.value, kInf)), kValues[m.above]);
  }
  EXPECT_EQ(round_to_e2m1(kInf), 6.0f);
  EXPECT_EQ(round_to_e2m1(kNan), 6.0f);
}

TEST(E2m1, PacksTheEvenElementLow) {
  EXPECT_EQ(pack_e2m1(0x3, 0xA), 0xA3);
  const uint8_t bytes[2] = {0xA3, 0x5F};
  EXPECT_EQ(unpack_e2m1(bytes, 0), 0x3);
  EXPECT_EQ(unpack_e2m1(bytes, 1), 0xA);
  EXPECT_EQ(unpack_e2m1(bytes, 2), 0xF);
  EXPECT_EQ(unpack_e2m1(bytes, 3), 0x5);
}

}  // namespace
}  // namespace nibble
