// Every product that the quantizer may fuse, rounded both ways.
#include "kernels/cuda/fused_rounding.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace nibble::cuda {
namespace {

// e2m1's grid, ties to even, of y in [0, 7).
double rounded_to_grid(double y) {
  const double step = y < 2 ? 0.5 : y < 4 ? 1 : 2;
  return std::nearbyint(y / step) * step;
}

// Of all block scales (significands 8 to 15) and all x of 11 significant bits.
bool rounds_alike(float encode_scale) {
  for (int scale = 8; scale < 16; ++scale) {
    const float factor = encode_scale / static_cast<float>(scale);
    for (int x = 1024; x < 2048; ++x) {
      int exponent = 0;
      const double significand = std::frexp(x * double{factor}, &exponent);  // exact
      for (int e = -3; e <= 3; ++e) {
        const double product = std::ldexp(significand, e);
        if (product < 7 &&
            rounded_to_grid(product) != rounded_to_grid(double{static_cast<float>(product)})) {
          return false;
        }
      }
    }
  }
  return true;
}

TEST(FusedRounding, IsAllowedOnlyWhereNoProductRoundsOtherwise) {
  std::mt19937 random(7);
  std::uniform_real_distribution<float> exponents(-20.0f, 20.0f);
  std::vector<float> scales = {1.0f, 2.0f, 0.5f, 3.0f, 448.0f * 6.0f, 1.0f / 3.0f, 0x1.fffffep0f};
  for (int i = 0; i < 300; ++i) scales.push_back(std::exp2(exponents(random)));
  int allowed = 0;
  for (const float scale : scales) {
    if (!fused_product_rounds_alike(scale)) continue;
    ++allowed;
    EXPECT_TRUE(rounds_alike(scale)) << scale;
  }
  EXPECT_GT(allowed, 290);  // or the fused kernel would stand idle
}

TEST(FusedRounding, IsRefusedWhereAProductRoundsOtherwise) {
  EXPECT_FALSE(rounds_alike(1.0f));
  EXPECT_FALSE(fused_product_rounds_alike(1.0f));
  EXPECT_FALSE(fused_product_rounds_alike(0x1p-7f));
}

}  // namespace
}  // namespace nibble::cuda
