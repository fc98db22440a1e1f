#include "formats/float16.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace nibble {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

static_assert(float_to_bf16(1.0f) == 0x3F80 && bf16_to_float(0xC000) == -2.0f);
static_assert(float_to_fp16(1.0f) == 0x3C00 && fp16_to_float(0x0001) == 0x1p-24f);

// Value of a finite half from its fields.
double half_value(int bits) {
  const int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
  const double a =
      exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return bits & 0x8000 ? -a : a;
}

TEST(Bf16, RoundTripsEveryPattern) {
  for (int i = 0; i < 65536; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    const float value = bf16_to_float(bits);
    ASSERT_EQ(float_bits(value), uint32_t{bits} << 16);
    ASSERT_EQ(float_to_bf16(value), std::isnan(value) ? bits | 0x40 : bits);
  }
}

TEST(Bf16, RoundsMidpointsToEven) {
  for (uint32_t i = 0; i < 0x7F80; ++i) {
    const uint32_t middle = (i << 16) | 0x8000u;
    ASSERT_EQ(float_to_bf16(float_from_bits(middle - 1)), i);
    ASSERT_EQ(float_to_bf16(float_from_bits(middle)), i + (i & 1));
    ASSERT_EQ(float_to_bf16(float_from_bits(middle + 1)), i + 1);
    ASSERT_EQ(float_to_bf16(-float_from_bits(middle + 1)), (i + 1) | 0x8000);
  }
}

TEST(Fp16, RoundTripsEveryPattern) {
  for (int i = 0; i < 65536; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    const float value = fp16_to_float(bits);
    const int magnitude = i & 0x7FFF;
    ASSERT_EQ(std::signbit(value), i >= 0x8000);
    if (magnitude > 0x7C00) {
      ASSERT_TRUE(std::isnan(value));
      ASSERT_EQ(float_bits(value), ((i & 0x8000u) << 16) | 0x7FC00000u | ((i & 0x3FFu) << 13));
      ASSERT_EQ(float_to_fp16(value), bits | 0x200);
      continue;
    }
    if (magnitude == 0x7C00) {
      ASSERT_TRUE(std::isinf(value));
    } else {
      ASSERT_EQ(value, half_value(i));
    }
    ASSERT_EQ(float_to_fp16(value), bits);
  }
}

TEST(Fp16, RoundsMidpointsToEven) {
  for (int i = 0; i < 0x7C00; ++i) {
    // The largest half's neighbour would be 2^16; it overflows to Inf there.
    const double next = i + 1 == 0x7C00 ? 65536.0 : half_value(i + 1);
    const auto middle = static_cast<float>((half_value(i) + next) / 2);
    ASSERT_EQ(float_to_fp16(std::nextafter(middle, 0.0f)), i);
    ASSERT_EQ(float_to_fp16(middle), i + (i & 1));
    ASSERT_EQ(float_to_fp16(std::nextafter(middle, kInf)), i + 1);
    ASSERT_EQ(float_to_fp16(-std::nextafter(middle, kInf)), (i + 1) | 0x8000);
  }
}

TEST(Float16, OverflowsToInfAndUnderflowsToZero) {
  EXPECT_EQ(float_to_fp16(std::nextafter(65520.0f, 0.0f)), 0x7BFF);
  EXPECT_EQ(float_to_fp16(65520.0f), 0x7C00);
  EXPECT_EQ(float_to_fp16(-kInf), 0xFC00);
  EXPECT_EQ(float_to_fp16(0x1p-25f), 0);
  EXPECT_EQ(float_to_fp16(-0x1p-26f), 0x8000);
  EXPECT_EQ(float_to_bf16(std::numeric_limits<float>::max()), 0x7F80);
  EXPECT_EQ(float_to_bf16(-kInf), 0xFF80);
}

TEST(Float16, NanStaysNanAndTurnsQuiet) {
  for (uint32_t bits : {0x7F800001u, 0x7FBFFFFFu, 0x7FC00000u, 0xFF800001u, 0xFFFFFFFFu}) {
    const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
    const float value = float_from_bits(bits);
    EXPECT_EQ(float_to_bf16(value) & 0xFFC0, 0x7FC0 | sign);
    EXPECT_EQ(float_to_fp16(value) & 0xFE00, 0x7E00 | sign);
  }
}

}  // namespace
}  // namespace nibble
