#include "formats/nvfp4.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

namespace nibble {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kMax = std::numeric_limits<float>::max();

struct Quantized {
  uint8_t scale = 0;
  std::array<uint8_t, kNvfp4BlockBytes> codes = {};
  int code(int i) const { return unpack_e2m1(codes.data(), i); }
};

using Block = std::array<float, kNvfp4BlockSize>;

constexpr Quantized quantize(const Block& x, float gs) {
  Quantized q;
  q.scale = quantize_nvfp4_block(x.data(), gs, q.codes.data());
  return q;
}

// The block of all e2m1 values at scale 1 is its own quantization, at compile time too.
constexpr Block kAllValues = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                              -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
static_assert(quantize(kAllValues, 1.0f).scale == 0x38);
static_assert(quantize(kAllValues, 1.0f).codes[3] == 0x76);
static_assert(nvfp4_encode_scale(6.0f) == 448.0f && nvfp4_decode_scale(2688.0f) == 1.0f);

TEST(Nvfp4, RepresentableValuesStay) {
  const Quantized q = quantize(kAllValues, 1.0f);
  Block back;
  dequantize_nvfp4_block(q.codes.data(), q.scale, 1.0f, back.data());
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(q.code(i), i);
    EXPECT_EQ(float_bits(back[static_cast<size_t>(i)]),
              float_bits(kAllValues[static_cast<size_t>(i)]));
  }
}

TEST(Nvfp4, GlobalScaleMapsTheTensorsAmaxTo448TimesSix) {
  Block x = {};
  x[5] = -123.4f;
  x[6] = 61.7f;
  const float gs = nvfp4_encode_scale(123.4f);
  const Quantized q = quantize(x, gs);
  EXPECT_EQ(q.scale, kE4m3MaxCode);
  EXPECT_EQ(q.code(5), 0xF);
  EXPECT_EQ(q.code(6), 0x5);
  EXPECT_NEAR(dequantize_nvfp4(0xF, q.scale, nvfp4_decode_scale(123.4f)), -123.4f, 1e-4f);
}

TEST(Nvfp4, ZeroBlockKeepsSignsOnly) {
  Block x = {};
  x[3] = -0.0f;
  const Quantized q = quantize(x, 100.0f);
  EXPECT_EQ(q.scale, 0);
  for (int i = 0; i < 16; ++i) EXPECT_EQ(q.code(i), i == 3 ? 0x8 : 0x0);
}

TEST(Nvfp4, ScaleThatUnderflowsGivesZeroCodes) {
  // amax / 6 at half of the smallest e4m3, 2^-9, ties to 0; a bit more reaches it.
  const float at = 6 * 0x1p-10f;
  Block x = {at, -at, at / 2};
  Quantized q = quantize(x, 1.0f);
  EXPECT_EQ(q.scale, 0);
  EXPECT_EQ(q.codes, (std::array<uint8_t, 8>{0x80}));
  x[0] = std::nextafter(std::nextafter(at, 1.0f), 1.0f);
  q = quantize(x, 1.0f);
  EXPECT_EQ(q.scale, 1);
  EXPECT_EQ(q.code(0), 0x5);
}

TEST(Nvfp4, TooLargeABlockSaturates) {
  Block x = {1e6f, -1e6f, 3000.0f, 448.0f, 100.0f};
  const Quantized q = quantize(x, 1.0f);
  EXPECT_EQ(q.scale, kE4m3MaxCode);
  EXPECT_EQ(q.code(0), 0x7);
  EXPECT_EQ(q.code(1), 0xF);
  EXPECT_EQ(q.code(2), 0x7);
  EXPECT_EQ(q.code(3), 0x2);
  EXPECT_EQ(q.code(4), 0x0);
}

TEST(Nvfp4, NanDoesNotCountAndBecomesPlusSix) {
  Block x = kAllValues;
  x[2] = kNan;
  x[9] = -kNan;
  const Quantized q = quantize(x, 1.0f);
  EXPECT_EQ(q.scale, 0x38);
  for (int i = 0; i < 16; ++i) EXPECT_EQ(q.code(i), i == 2 || i == 9 ? 0x7 : i);
  Block nan_only = {};
  nan_only.fill(kNan);
  const Quantized n = quantize(nan_only, 1.0f);
  EXPECT_EQ(n.scale, 0);
  for (int i = 0; i < 16; ++i) EXPECT_EQ(n.code(i), 0x7);
}

TEST(Nvfp4, InfMakesTheLargestScale) {
  Block x = {kInf, -kInf, 1.0f, 448.0f, kMax, 0.0f, -0.0f};
  const Quantized q = quantize(x, 1.0f);
  EXPECT_EQ(q.scale, kE4m3MaxCode);
  const int expected[7] = {0x7, 0xF, 0x0, 0x2, 0x7, 0x0, 0x8};
  for (int i = 0; i < 7; ++i) EXPECT_EQ(q.code(i), expected[i]) << i;
}

TEST(Nvfp4, ZeroStaysZeroWhereTheFactorWouldOverflow) {
  Block x = {0x1p-149f, 0.0f, -0.0f};
  const Quantized q = quantize(x, 0x1p127f);  // scale underflows to 0
  EXPECT_EQ(q.scale, 0);
  x[0] = 6 * 0x1p-136f;  // scale 2^-9: gs / scale = 2^136 is capped
  const Quantized p = quantize(x, 0x1p127f);
  EXPECT_EQ(p.scale, 1);
  EXPECT_EQ(p.code(1), 0x0);
  EXPECT_EQ(p.code(2), 0x8);
}

TEST(Nvfp4, GlobalScalesOfOddAmaxes) {
  for (float amax : {0.0f, -0.0f, -1.0f, kInf, kNan}) {
    EXPECT_EQ(nvfp4_encode_scale(amax), 1.0f) << amax;
    EXPECT_EQ(nvfp4_decode_scale(amax), 1.0f) << amax;
  }
  for (float amax : {0x1p-149f, 1e-40f, 1e-35f}) {
    EXPECT_EQ(nvfp4_encode_scale(amax), 0x1p118f) << amax;
    EXPECT_EQ(nvfp4_decode_scale(amax), 0x1p-118f) << amax;
  }
  EXPECT_EQ(nvfp4_encode_scale(kMax), 2688.0f / kMax);
  EXPECT_EQ(nvfp4_decode_scale(kMax), kMax / 2688.0f);
  EXPECT_EQ(nvfp4_encode_scale(3.0f, 256.0f), 512.0f);
  EXPECT_EQ(nvfp4_decode_scale(3.0f, 256.0f), 3.0f / 1536.0f);
}

TEST(Nvfp4, DequantizesEveryCodeAndScale) {
  const float global = 0.0123f;
  for (int code = 0; code < 16; ++code) {
    for (int scale = 0; scale < 256; ++scale) {
      const auto c = static_cast<uint8_t>(code), s = static_cast<uint8_t>(scale);
      const float value = dequantize_nvfp4(c, s, global);
      if ((scale & 0x7F) == 0x7F) {
        EXPECT_TRUE(std::isnan(value));
        continue;
      }
      const double exact = double{e2m1_to_float(c)} * double{e4m3_to_float(s)};
      EXPECT_EQ(value, static_cast<float>(exact) * global);
    }
  }
}

}  // namespace
}  // namespace nibble
