#include "formats/mxfp4.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

namespace nibble {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
using enum Mxfp4ScaleRule;

struct Quantized {
  uint8_t scale = 0;
  std::array<uint8_t, kMxfp4BlockBytes> codes = {};
  int code(int i) const { return unpack_e2m1(codes.data(), i); }
};

using Block = std::array<float, kMxfp4BlockSize>;

constexpr Quantized quantize(const Block& x, Mxfp4ScaleRule rule) {
  Quantized q;
  q.scale = quantize_mxfp4_block(x.data(), rule, q.codes.data());
  return q;
}

static_assert(quantize({6.0f, -3.0f}, kCeil).scale == 127);
static_assert(quantize({6.0f, -3.0f}, kCeil).codes[0] == 0xD7);

TEST(Mxfp4, RulesDifferBetweenSixAndEight) {
  const Block x = {6.5f, -2.0f, 0.5f};
  Quantized q = quantize(x, kCeil);
  EXPECT_EQ(q.scale, 128);
  EXPECT_EQ(q.codes[0], 0xA5);  // 3.25 -> 3, -1
  EXPECT_EQ(q.code(2), 0x0);    // 0.25 ties to 0
  q = quantize(x, kFloor);
  EXPECT_EQ(q.scale, 127);
  EXPECT_EQ(q.codes[0], 0xC7);  // clipped to 6, -2
  EXPECT_EQ(quantize(x, kEven).scale, 127);
  EXPECT_EQ(quantize({7.0f}, kEven).scale, 128);
}

TEST(Mxfp4, RepresentableValuesStayAtEveryScale) {
  for (int b = 0; b <= 252; ++b) {
    Block x = {};
    for (int i = 0; i < 32; ++i) {
      x[static_cast<size_t>(i)] = std::ldexp(e2m1_to_float(static_cast<uint8_t>(i % 16)), b - 127);
    }
    const Quantized q = quantize(x, kCeil);
    ASSERT_EQ(q.scale, b);
    Block back;
    dequantize_mxfp4_block(q.codes.data(), q.scale, back.data());
    for (size_t i = 0; i < 32; ++i) {
      ASSERT_EQ(q.code(static_cast<int>(i)), static_cast<int>(i % 16)) << b;
      ASSERT_EQ(float_bits(back[i]), float_bits(x[i])) << b;
    }
  }
}

TEST(Mxfp4, EdgeBlocks) {
  for (Mxfp4ScaleRule rule : {kCeil, kFloor, kEven}) {
    Quantized q = quantize({0.0f, -0.0f}, rule);
    EXPECT_EQ(q.scale, 0);
    EXPECT_EQ(q.codes[0], 0x80);

    q = quantize({0x1p-149f, -0x1p-149f}, rule);  // far below the smallest scale's half step
    EXPECT_EQ(q.scale, 0);
    EXPECT_EQ(q.codes[0], 0x80);

    q = quantize({0x1p-127f, 0x1p-128f}, rule);
    EXPECT_EQ(q.scale, 0);
    EXPECT_EQ(q.codes[0], 0x12);

    q = quantize({6.0f, kNan, -kNan, -1.0f}, rule);
    EXPECT_EQ(q.scale, 127);
    EXPECT_EQ(q.codes[0], 0x77);
    EXPECT_EQ(q.codes[1], 0xA7);

    q = quantize({kInf, -kInf, 0x1p127f, 1.0f}, rule);
    EXPECT_EQ(q.scale, 0xFE);
    EXPECT_EQ(q.codes[0], 0xF7);
    EXPECT_EQ(q.codes[1], 0x02);

    Block nan_only;
    nan_only.fill(kNan);
    q = quantize(nan_only, rule);
    EXPECT_EQ(q.scale, 0);
    for (int i = 0; i < 32; ++i) EXPECT_EQ(q.code(i), 0x7);
  }
  const float max = std::numeric_limits<float>::max();
  EXPECT_EQ(quantize({max}, kCeil).code(0), 0x6);   // just below 4 * 2^126
  EXPECT_EQ(quantize({max}, kFloor).code(0), 0x7);  // clipped from just below 8
}

TEST(Mxfp4, DequantizesEveryCodeAndScale) {
  for (int scale = 0; scale < 255; ++scale) {
    for (int code = 0; code < 16; ++code) {
      const auto c = static_cast<uint8_t>(code);
      EXPECT_EQ(dequantize_mxfp4(c, static_cast<uint8_t>(scale)),
                std::ldexp(e2m1_to_float(c), scale - 127));
    }
  }
  EXPECT_TRUE(std::isnan(dequantize_mxfp4(0, 255)));
}

}  // namespace
}  // namespace nibble
