// What the Hopper GEMMs offer the choice, on an H200 that need not be there.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "dispatch/chips.h"
#include "kernels/sm90/gemm.h"

namespace nibble::sm90 {
namespace {

DeviceInfo h200() { return device_info({.name = "H200", .sm = 90, .sms = 132, .bandwidth = 4.8}); }

GemmDesc gemm(int64_t m, int64_t n, int64_t k) {
  return {.m = m,
          .n = n,
          .k = k,
          .weight = WeightFormat::kNvfp4,
          .layout = WeightLayout::kSm90,
          .activation = ActivationMode::k16Bit,
          .a_type = DType::kBF16,
          .d_type = DType::kBF16};
}

KernelConfig chosen(const GemmDesc& d) {
  const auto all = kWgmmaGemm.candidates(d, h200());
  return *std::ranges::min_element(
      all, {}, [&](const KernelConfig& c) { return kWgmmaGemm.estimate_us(d, c, h200()); });
}

// One more column of products than a tile has tokens is time lost.
TEST(Sm90Candidates, TilesAreAsWideAsTheirTokens) {
  for (const auto& [m, tokens] : {std::pair{12, 16},
                                  {40, 40},
                                  {45, 48},
                                  {70, 72},
                                  {75, 80},
                                  {84, 88},
                                  {90, 96},
                                  {100, 104},
                                  {105, 112},
                                  {120, 120},
                                  {128, 128}}) {
    EXPECT_EQ(chosen(gemm(m, 13824, 5120)).tile_m, tokens) << "m = " << m;
  }
}

TEST(Sm90Candidates, OfOneCutOnlyTheNarrowestTileIsOffered) {
  for (int64_t m = 1; m < 1100; m += 7) {
    const GemmDesc d = gemm(m, 7168, 2048);
    const auto all = kWgmmaGemm.candidates(d, h200());
    ASSERT_FALSE(all.empty()) << "m = " << m;
    for (const KernelConfig& a : all) {
      for (const KernelConfig& b : all) {
        const bool same_cut = a.tile_n == b.tile_n && a.tile_k == b.tile_k &&
                              a.split_k == b.split_k && a.cluster == b.cluster && a.rest_m == 0 &&
                              b.rest_m == 0;
        const int64_t tiles = (m + a.tile_m - 1) / a.tile_m;
        EXPECT_FALSE(same_cut && b.tile_m < a.tile_m && b.tile_m * tiles >= m)
            << "m = " << m << ": " << to_string(a) << " beside " << to_string(b);
      }
    }
  }
}

// 7168 rows are no multiple of what gives 132 multiprocessors work.
TEST(Sm90Candidates, ASecondKindOfTileTakesWhatIsLeft) {
  for (const auto& [m, rest_m] : {std::pair{256, 72}, {384, 80}, {512, 224}, {576, 64}, {640, 0}}) {
    EXPECT_EQ(chosen(gemm(m, 7168, 2048)).rest_m, rest_m) << "m = " << m;
  }
  EXPECT_EQ(chosen(gemm(512, 8192, 8192)).rest_m, 0);
}

TEST(Sm90Candidates, EachIsOfferedOnce) {
  for (const int64_t m : {1, 17, 100, 300, 1000}) {
    const auto all = kWgmmaGemm.candidates(gemm(m, 4096, 7168), h200());
    std::set<std::string> names;
    for (const KernelConfig& c : all) {
      EXPECT_TRUE(names.insert(to_string(c)).second) << "m = " << m << ": " << to_string(c);
    }
  }
}

}  // namespace
}  // namespace nibble::sm90
