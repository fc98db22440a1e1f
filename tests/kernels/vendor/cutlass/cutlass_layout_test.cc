// What CUTLASS's own layouts say of a Problem, element by element: the scales lie as in
// kSwizzled128x4, and D^T's elements are D's.
#include <gtest/gtest.h>

#include <array>
#include <set>

#include "formats/scale_layout.h"
#include "kernels/vendor/cutlass/operands.h"

namespace nibble::cutlass_gemm {
namespace {

Problem problem(int m, int n, int k) {
  Problem p;
  p.m = m;
  p.n = n;
  p.k = k;
  p.token_stride = k / 2 + 16;
  p.d_stride = n + 24;
  p.c_stride = n + 8;
  return p;
}

template <int kBlock, class Layout>
void expect_swizzled(const Layout& layout, int rows, int k) {
  constexpr ScaleLayout kOurs = ScaleLayout::kSwizzled128x4;
  const int cols = k / kBlock;
  // Its elements that share a scale share an address.
  EXPECT_EQ(cute::cosize(layout), scale_bytes(kOurs, rows, cols));
  for (int row = 0; row < rows; ++row) {
    for (int j = 0; j < k; ++j) {
      ASSERT_EQ(layout(row, j, 0), scale_offset(kOurs, row, j / kBlock, cols))
          << "row " << row << " k " << j << " of " << rows << " x " << k;
    }
  }
}

template <class Scales>
void check_scales() {
  constexpr int kBlock = Scales::SFVecSize;
  for (const auto& [m, n, k] : {std::array{1, 8, 32}, std::array{7, 128, 64},
                                std::array{130, 136, 160}, std::array{128, 384, 1056}}) {
    const Operands<Scales> at(problem(m, n, k));
    expect_swizzled<kBlock>(at.weight_scales, n, k);
    expect_swizzled<kBlock>(at.token_scales, m, k);
  }
}

using cutlass::detail::Sm103BlockScaledConfig;
using cutlass::detail::Sm1xxBlockScaledConfig;

TEST(CutlassLayout, ScalesOfNvfp4AreSwizzled128x4) { check_scales<Sm1xxBlockScaledConfig<16>>(); }
TEST(CutlassLayout, ScalesOfMxfp4AreSwizzled128x4) { check_scales<Sm1xxBlockScaledConfig<32>>(); }
TEST(CutlassLayout, ScalesOfSm103AreSwizzled128x4) { check_scales<Sm103BlockScaledConfig<16>>(); }

TEST(CutlassLayout, SwappedOperandsAreOursWhereTheyLie) {
  const Problem p = problem(5, 24, 96);
  const Operands<Sm1xxBlockScaledConfig<16>> at(p);
  EXPECT_EQ(at.shape, cute::make_shape(p.n, p.m, p.k, 1));
  const auto weights = cute::make_layout(cute::make_shape(p.n, p.k, 1), at.weights);
  const auto tokens = cute::make_layout(cute::make_shape(p.m, p.k, 1), at.tokens);
  const auto d = cute::make_layout(cute::make_shape(p.n, p.m, 1), at.d);
  const auto c = cute::make_layout(cute::make_shape(p.n, p.m, 1), at.c);
  for (int64_t j = 0; j < p.n; ++j) {
    for (int64_t x = 0; x < p.k; ++x) ASSERT_EQ(weights(j, x, 0), j * p.k + x);
  }
  std::set<int64_t> written;
  for (int64_t i = 0; i < p.m; ++i) {
    // Codes two a byte: element x of row i is a nibble of byte i * stride + x / 2.
    for (int64_t x = 0; x < p.k; ++x) ASSERT_EQ(tokens(i, x, 0), 2 * i * p.token_stride + x);
    for (int64_t j = 0; j < p.n; ++j) {
      ASSERT_EQ(d(j, i, 0), i * p.d_stride + j);
      ASSERT_EQ(c(j, i, 0), i * p.c_stride + j);
      EXPECT_TRUE(written.insert(d(j, i, 0)).second);
    }
  }
}

}  // namespace
}  // namespace nibble::cutlass_gemm
