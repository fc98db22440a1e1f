#include "formats/block_search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <random>

namespace nibble {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Random blocks of several shapes: normal, heavy-tailed, few distinct values, half-steps of e2m1
// (where ties abound), few nonzero; the magnitude spans 2^-low to 2^high.
template <int N>
class Blocks {
 public:
  Blocks(float low, float high) : low_(low), high_(high) {}

  std::array<float, N> next() {
    std::array<float, N> x;
    const float unit = std::exp2(std::uniform_real_distribution<float>(low_, high_)(random_));
    const int shape = static_cast<int>(random_() % 5);
    for (float& v : x) {
      const float n = normal_(random_);
      v = shape == 0           ? n
          : shape == 1         ? n * n * n
          : shape == 2         ? std::round(n)
          : shape == 3         ? std::round(n * 8) * 0.25f
          : random_() % 4 == 0 ? n
                               : 0.0f;
      v *= shape == 3 ? std::exp2(std::round(std::log2(unit))) : unit;
    }
    return x;
  }

 private:
  float low_, high_;
  std::mt19937 random_{20251121};
  std::normal_distribution<float> normal_;
};

// The definition: all 126 codes.
uint8_t full_sweep(const float* x, float gs) {
  uint8_t best = 0;
  float best_error = kInf;
  for (int code = 1; code <= 126; ++code) {
    const float error = nvfp4_block_error(x, gs, static_cast<uint8_t>(code));
    if (error < best_error) {
      best = static_cast<uint8_t>(code);
      best_error = error;
    }
  }
  return best;
}

double squared_error(const float* x, const uint8_t* codes, uint8_t scale, float decode) {
  double sum = 0;
  for (int i = 0; i < kNvfp4BlockSize; ++i) {
    const double d = double{x[i]} - dequantize_nvfp4(unpack_e2m1(codes, i), scale, decode);
    sum += d * d;
  }
  return sum;
}

TEST(Nvfp4Mse, WindowGivesTheFullSweepsResult) {
  // From blocks that underflow to ones that overflow, and global scales at both ends.
  for (float gs : {1.0f, 0.83f, 1e30f, kNvfp4MaxEncodeScale, 8e-36f}) {
    Blocks<kNvfp4BlockSize> blocks(-14.0f - std::log2(gs), 11.5f - std::log2(gs));
    for (int i = 0; i < 30000; ++i) {
      const auto x = blocks.next();
      if (block_amax<kNvfp4BlockSize>(x.data()) == 0.0f) continue;
      if (!(block_amax<kNvfp4BlockSize>(x.data()) * gs < 0x1p14f)) continue;
      ASSERT_EQ(nvfp4_mse_scale(x.data(), gs), full_sweep(x.data(), gs)) << gs << ' ' << i;
    }
  }
}

TEST(Nvfp4Mse, IsNeverWorseThanThePlainScaleAndOftenBetter) {
  Blocks<kNvfp4BlockSize> blocks(-6.0f, 8.0f);
  int better = 0;
  for (int i = 0; i < 20000; ++i) {
    const auto x = blocks.next();
    uint8_t plain_codes[8], codes[8];
    const uint8_t plain = quantize_nvfp4_block(x.data(), 1.0f, plain_codes);
    const uint8_t scale = quantize_nvfp4_block_mse(x.data(), 1.0f, codes);
    const double plain_error = squared_error(x.data(), plain_codes, plain, 1.0f);
    const double error = squared_error(x.data(), codes, scale, 1.0f);
    ASSERT_LE(error, plain_error * (1 + 1e-6));
    better += error < plain_error * 0.99;
  }
  EXPECT_GT(better, 10000);
}

TEST(Nvfp4Mse, OddBlocksKeepThePlainScale) {
  const std::array<float, 16> odd[] = {
      {}, {kNan, 1.0f, 2.7f, -5.5f}, {kInf, 1.0f, 2.7f}, {1e30f, 5.0f, -3.0f}, {kNan, kNan, kNan}};
  for (const auto& x : odd) {
    uint8_t plain_codes[8], codes[8];
    EXPECT_EQ(quantize_nvfp4_block_mse(x.data(), 1.0f, codes),
              quantize_nvfp4_block(x.data(), 1.0f, plain_codes));
    EXPECT_TRUE(std::equal(codes, codes + 8, plain_codes));
  }
}

TEST(Nvfp4FourOverSix, TakesTheBetterOfTheTwoScales) {
  Blocks<kNvfp4BlockSize> blocks(-3.0f, 6.0f);
  int fours = 0;
  for (int i = 0; i < 20000; ++i) {
    const auto x = blocks.next();
    const float amax = block_amax<kNvfp4BlockSize>(x.data());
    uint8_t codes[8], six_codes[8], four_codes[8];
    const uint8_t scale = quantize_nvfp4_block_four_over_six(x.data(), 1.0f, codes);
    const uint8_t six = quantize_nvfp4_block(x.data(), 1.0f, six_codes);
    const uint8_t four = float_to_e4m3_satfinite(1.5f * nvfp4_ideal_scale(amax, 1.0f));
    encode_e2m1_block<16>(x.data(), nvfp4_factor(four, 1.0f), four_codes);
    ASSERT_TRUE(scale == six || scale == four);
    const double error = squared_error(x.data(), codes, scale, 1.0f);
    ASSERT_LE(error, squared_error(x.data(), six_codes, six, 1.0f) * (1 + 1e-6));
    ASSERT_LE(error, squared_error(x.data(), four_codes, four, 1.0f) * (1 + 1e-6));
    fours += scale != six;
  }
  EXPECT_GT(fours, 2000);
  EXPECT_LT(fours, 18000);
}

TEST(Nvfp4FourOverSix, PicksFourForAValueBetweenFourAndSix) {
  // At 6 -> 6 the element 5 is a whole unit off; at 6 -> 4 (scale 1.5) it is 3.33 -> 3, 0.5 off.
  const std::array<float, 16> x = {6.0f, 5.0f, 4.5f, 3.0f};
  uint8_t codes[8];
  EXPECT_EQ(quantize_nvfp4_block_four_over_six(x.data(), 1.0f, codes), 0x3C);
  EXPECT_EQ(codes[0], 0x56);
  EXPECT_EQ(codes[1], 0x45);
  const std::array<float, 16> y = {6.0f, 4.0f, 3.0f, 0.5f};  // exact at 6 -> 6
  EXPECT_EQ(quantize_nvfp4_block_four_over_six(y.data(), 1.0f, codes), 0x38);
}

TEST(Nvfp4FourOverSix, OddBlocksKeepThePlainScale) {
  const std::array<float, 16> odd[] = {{}, {kNan, 5.0f, 6.0f, 4.5f}, {kInf, 1.0f}, {1e30f, 5.0f}};
  for (const auto& x : odd) {
    uint8_t plain_codes[8], codes[8];
    EXPECT_EQ(quantize_nvfp4_block_four_over_six(x.data(), 1.0f, codes),
              quantize_nvfp4_block(x.data(), 1.0f, plain_codes));
    EXPECT_TRUE(std::equal(codes, codes + 8, plain_codes));
  }
}

TEST(Mxfp4Mse, IsTheBestOfAll255Scales) {
  Blocks<kMxfp4BlockSize> blocks(-130.0f, 122.0f);
  int lower = 0;
  for (int i = 0; i < 3000; ++i) {
    const auto x = blocks.next();
    const float amax = block_amax<kMxfp4BlockSize>(x.data());
    uint8_t codes[16], expected[16];
    const uint8_t scale = quantize_mxfp4_block_mse(x.data(), codes);
    const int ceil = ue8m0_from_amax(amax, Mxfp4ScaleRule::kCeil);
    // Errors in double, exact: no two scales are confused by rounding.
    int best = 255;
    double best_error = std::numeric_limits<double>::infinity();
    for (int b = 0; b < 255; ++b) {
      double error = 0;
      for (float v : x) {
        const double a = std::ldexp(std::fabs(double{v}), 127 - b);
        const double q = a > 100 ? 6.0 : double{round_to_e2m1(static_cast<float>(a))};
        const double d = std::ldexp(a - q, b - 127);
        error += d * d;
      }
      if (error < best_error || (error == best_error && b <= ceil)) {
        best = b;
        best_error = error;
      }
    }
    ASSERT_EQ(scale, best) << i << " amax " << amax;
    encode_e2m1_block<32>(x.data(), ue8m0_reciprocal(scale), expected);
    ASSERT_TRUE(std::equal(codes, codes + 16, expected));
    lower += scale < ceil;
  }
  EXPECT_GT(lower, 150);
}

TEST(Mxfp4Mse, OddBlocksKeepTheCeilScale) {
  const std::array<float, 32> odd[] = {{}, {kNan, 6.5f, 2.7f}, {kInf, 1.0f}, {0x1p-140f}};
  for (const auto& x : odd) {
    uint8_t plain_codes[16], codes[16];
    EXPECT_EQ(quantize_mxfp4_block_mse(x.data(), codes),
              quantize_mxfp4_block(x.data(), Mxfp4ScaleRule::kCeil, plain_codes));
    EXPECT_TRUE(std::equal(codes, codes + 16, plain_codes));
  }
}

}  // namespace
}  // namespace nibble
