// What the Hopper GEMMs offer the choice, on an H200 that need not be there.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/kernels/sm90/h200.h"

namespace nibble::sm90 {
namespace {

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
  for (const auto& [m, rest_m] :
       {std::pair{256, 72}, {281, 0}, {320, 88}, {384, 112}, {448, 128}, {512, 224}, {640, 192}}) {
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

using Json = nlohmann::json;
using Timings = std::map<std::string, double>;  // of a cell's candidates, by name, in us

// What the choice among those of them that are candidates takes, by the fastest.
double loss(const GemmDesc& d, const Timings& timed) {
  double chosen_us = 0.0, least = INFINITY, best = INFINITY;
  for (const Estimate& e : estimates(d)) {
    const auto found = timed.find(e.name);
    if (found == timed.end()) continue;
    best = std::min(best, found->second);
    if (e.us < least) {
      least = e.us;
      chosen_us = found->second;
    }
  }
  return chosen_us / best;
}

void expect_losses(const std::vector<double>& losses, size_t cells, double mean, double worst) {
  ASSERT_GE(losses.size(), cells);
  double logs = 0.0;
  for (const double x : losses) logs += std::log(x);
  EXPECT_LT(std::exp(logs / static_cast<double>(losses.size())), mean);
  EXPECT_LT(*std::ranges::max_element(losses), worst);
}

Json cells_of(const std::string& file) {
  std::ifstream in(NIBBLE_BENCH "/" + file);
  return Json::parse(in).at("cells");
}
GemmDesc gemm_of(const Json& cell) { return gemm(cell.at("m"), cell.at("n"), cell.at("k")); }

// Runs of an H200: those that the constants were fitted to, and of layers that they were not.
TEST(Sm90Candidates, TheChoiceLosesLittleOfWhatWasTimed) {
  std::map<std::vector<int64_t>, double> fitted;  // of a cell in several files the first counts
  for (const char* name : {"wide", "layers", "few_tokens", "wgmma", "mixed"}) {
    const Json cells = cells_of(std::string("data/h200_") + name + ".json");
    for (const Json& cell : cells) {
      const GemmDesc d = gemm_of(cell);
      Timings timed;
      for (const Json& row : cell.at("timed")) timed[row.at(0)] = row.at(1);
      fitted.try_emplace({d.n, d.k, d.m}, loss(d, timed));
    }
  }
  std::vector<double> losses;
  for (const auto& [cell, lost] : fitted) losses.push_back(lost);
  expect_losses(losses, 600, 1.01, 1.10);

  losses.clear();
  const Json cells = cells_of("results/h200_gemm_other.json");
  for (const Json& cell : cells) {
    losses.push_back(loss(gemm_of(cell), cell.at("timed").get<Timings>()));
  }
  expect_losses(losses, 60, 1.03, 1.10);
}

}  // namespace
}  // namespace nibble::sm90
