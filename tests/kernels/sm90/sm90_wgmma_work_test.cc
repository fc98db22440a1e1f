// How the wgmma GEMM's blocks share out tiles: everything once, and whoever adds up a tile that is
// cut knows who has the rest.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <set>
#include <utility>
#include <vector>

#include "kernels/sm90/gemm_wgmma_work.h"

namespace nibble::sm90 {
namespace {

TEST(Sm90WgmmaWork, DivisorsDivide) {
  constexpr int kLargest = std::numeric_limits<int>::max();
  for (const int d : {1, 2, 3, 5, 7, 8, 24, 56, 57, 641, 65537, kLargest / 2 + 1, kLargest}) {
    const cuda::Divisor divisor(d);
    for (const int64_t near : {int64_t{0}, int64_t{d}, int64_t{7} * d, int64_t{kLargest} / d * d}) {
      for (int64_t x = near - 2; x <= near + 2; ++x) {
        if (x < 0 || x > kLargest) continue;
        EXPECT_EQ(divisor.divide(static_cast<int>(x)), x / d) << x << " / " << d;
      }
    }
    EXPECT_EQ(divisor.divide(kLargest), kLargest / d) << d;
  }
}

TEST(Sm90WgmmaWork, TilesAreNumberedOnce) {
  constexpr int kTokens = 24, kGroups = 4, kWorkers = 132;
  bool lower = false;
  for (const int token_tiles : {1, 3, 8, 9, 30}) {
    for (const int rows : {1, 300, 28672, 36000}) {
      const WgmmaTiles cut(token_tiles * kTokens - 5, rows, kTokens, 8, kGroups, 1, kWorkers, true);
      const WgmmaWork work(cut, 8, 0, 1, kWorkers);
      lower |= cut.lower();
      std::set<std::pair<int, int>> seen;  // of every token tile every 64 rows
      for (int i = 0; i < cut.tiles(); ++i) {
        const WgmmaTile<true> tile(i, work);
        EXPECT_EQ(tile.token % kTokens, 0);
        EXPECT_TRUE(tile.groups > 0 && tile.groups <= kGroups);
        for (int group = tile.group; group < tile.group + tile.groups; ++group) {
          EXPECT_TRUE(seen.emplace(tile.token, group).second)
              << "tile " << i << " has others' rows";
        }
      }
      for (int token = 0; token < token_tiles; ++token) {
        for (int group = 0; group < (rows + kGroupRows - 1) / kGroupRows; ++group) {
          EXPECT_TRUE(seen.contains({token * kTokens, group})) << token << " " << group;
        }
      }
    }
  }
  EXPECT_TRUE(lower);
}

TEST(Sm90WgmmaWork, LowerTilesEndTheWavesSooner) {
  for (const int step : {1, 2}) {
    for (const int workers : {66, 132}) {
      for (int rows = 64; rows < 60000; rows += 1472) {
        for (const int token_tiles : {1, 2, 4, 7}) {
          const auto cut = [&](bool lower) {
            return WgmmaTiles(token_tiles * 128, rows, 128, 1, 4 * step, step, workers, lower);
          };
          const WgmmaTiles whole = cut(false), mixed = cut(true);
          EXPECT_FALSE(whole.lower());
          if (!mixed.lower()) {
            EXPECT_EQ(mixed.row_tiles, whole.row_tiles);
            continue;
          }
          const auto waves = [&](int tiles) { return (tiles + workers - 1) / workers; };
          EXPECT_LT(mixed.low_groups, whole.groups);
          EXPECT_EQ(mixed.low_groups % step, 0);
          EXPECT_LT(waves(mixed.low_from * token_tiles), waves(whole.tiles()));
          EXPECT_EQ(waves(mixed.tiles()), waves(whole.tiles()));
        }
      }
    }
  }
}

TEST(Sm90WgmmaWork, TilesShareTokensEvenly) {
  for (const int most : {16, 64, 256}) {
    for (const int step : {1, 16}) {
      for (int m = 1; m <= 3 * most + 1; ++m) {
        const int tiles = (m + most - 1) / most,
                  tokens = WgmmaTiles(m, 64, most, step, 1, 1, 1, false).tile_tokens;
        EXPECT_EQ(tokens % step, 0);
        EXPECT_LE(tokens, most);
        EXPECT_GE(tiles * tokens, m) << "tokens are left out";
        EXPECT_LT((tiles - 1) * tokens, m) << "a tile has none";
        if (tiles == 1 && most <= kWholeTokens) {
          EXPECT_EQ(tokens, most);
        } else {
          EXPECT_LT(tiles * tokens - m, tiles * step) << "more is copied than there is";
        }
      }
    }
  }
}

// Of two kinds of tiles, the first has whole columns of tokens, the other what is left, and there
// are blocks for both.
TEST(Sm90WgmmaWork, TwoKindsOfTilesShareTheTokens) {
  constexpr WgmmaMix::Kind kKinds[][2] = {{{144, 3}, {224, 2}}, {{112, 2}, {72, 3}}};
  for (const auto& [kind, rest] : kKinds) {
    for (const int n : {1, 200, 7168, 28672}) {
      for (int m = 1; m < 1500; m += 13) {
        const WgmmaMix mix(m, n, kind, rest, 132);
        EXPECT_EQ(mix.rest_workers > 0, mix.m < m) << m;
        EXPECT_EQ(mix.rest_workers > 0, m > kind.tokens) << m;
        EXPECT_TRUE(mix.workers > 0 && mix.workers + mix.rest_workers <= 132) << m;
        EXPECT_EQ(mix.rest_workers > 0 ? mix.m % kind.tokens : 0, 0) << m;
        const auto tiles = [&](int tokens, const WgmmaMix::Kind& k, int workers) {
          return WgmmaTiles(tokens, n, k.tokens, 1, k.groups, 1, workers, true).tiles();
        };
        EXPECT_GE(tiles(mix.m, kind, mix.workers), mix.workers) << m;
        if (mix.rest_workers > 0) {
          EXPECT_GE(tiles(m - mix.m, rest, mix.rest_workers), mix.rest_workers) << m;
        }
      }
    }
  }
}

// Where they are for: every one of 132 blocks has one tile.
TEST(Sm90WgmmaWork, TwoKindsOfTilesFillADevice) {
  const WgmmaMix mix(512, 7168, {144, 3}, {224, 2}, 132);
  EXPECT_EQ(mix.m, 288);
  EXPECT_EQ(mix.workers, 76);
  EXPECT_EQ(mix.rest_workers, 56);
  EXPECT_EQ(WgmmaMix(512, 7168, {144, 3}, {224, 2}, 1).rest_workers, 0);
}

TEST(Sm90WgmmaWork, BlocksOfASplitTileCoverItsK) {
  for (const int k : {8, 9, 57}) {
    for (const int split : {1, 2, 3, 4, 8}) {
      const WgmmaWork work(WgmmaTiles(16, 4 * 64, 16, 1, 1, 1, 10, false), k, 0, split, 10);
      int at = 0;
      for (int share = 0; share < split; ++share) {
        WgmmaParts<false> part(work, 3);
        ASSERT_TRUE(part.next(work, share));
        EXPECT_EQ(part.tile, 3);
        EXPECT_EQ(part.k_begin, at);
        EXPECT_LT(part.k_begin, part.k_end);
        at = part.k_end;
        EXPECT_FALSE(part.next(work, share));
      }
      EXPECT_EQ(at, k);
    }
  }
}

TEST(Sm90WgmmaWork, AStreamIsCoveredOnceAndItsOwnersKnowWhoElseWorkedOnTheirTile) {
  for (const int tiles : {1, 7, 131, 132, 144, 200, 288}) {
    for (const int k : {1, 3, 16, 56, 144}) {
      for (const int most : {1, 66, 132}) {
        const int workers = std::min(most, tiles * k);
        const int rest = tiles % workers;
        const int stream = tiles < workers ? tiles : rest == 0 ? 0 : rest + workers;
        const WgmmaWork work(WgmmaTiles(16, tiles * 64, 16, 1, 1, 1, workers, false), k, stream, 1,
                             workers);
        std::vector<int> covered(tiles * k, 0);
        // Who left sums for a tile, and whose sums its owner will wait for.
        std::vector<std::set<int>> left(tiles), waited(tiles);
        for (int w = 0; w < workers; ++w) {
          WgmmaParts<true> part(work, w);
          int parts_left = 0;
          while (part.next(work, 0)) {
            ASSERT_LT(part.tile, tiles);
            ASSERT_LT(part.k_begin, part.k_end);
            for (int i = part.k_begin; i < part.k_end; ++i) ++covered[part.tile * k + i];
            if (part.k_begin > 0) {
              left[part.tile].insert(w);
              ++parts_left;
              continue;
            }
            const int tile_end = (part.tile + 1) * k;
            for (int other = w + 1; part.k_end < k; ++other) {
              if (work.piece_begin(other) >= tile_end) break;
              waited[part.tile].insert(other);
            }
          }
          EXPECT_LE(parts_left, 1);  // there is memory for one
        }
        EXPECT_TRUE(std::ranges::all_of(covered, [](int times) { return times == 1; }))
            << tiles << " tiles of " << k << " for " << workers;
        EXPECT_EQ(left, waited) << tiles << " tiles of " << k << " for " << workers;
      }
    }
  }
}

}  // namespace
}  // namespace nibble::sm90
