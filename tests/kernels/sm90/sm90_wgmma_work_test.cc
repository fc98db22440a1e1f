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
  for (const int token_tiles : {1, 3, 8, 9, 30}) {
    for (const int row_tiles : {1, 5, 144}) {
      const WgmmaWork work(token_tiles, row_tiles, 8, 0, 1, 132);
      std::set<std::pair<int, int>> seen;
      for (int i = 0; i < token_tiles * row_tiles; ++i) {
        const WgmmaTile tile(i, work);
        EXPECT_TRUE(tile.token >= 0 && tile.token < token_tiles);
        EXPECT_TRUE(tile.row_tile >= 0 && tile.row_tile < row_tiles);
        EXPECT_TRUE(seen.emplace(tile.token, tile.row_tile).second) << "tile " << i << " twice";
      }
    }
  }
}

TEST(Sm90WgmmaWork, BlocksOfASplitTileCoverItsK) {
  for (const int k : {8, 9, 57}) {
    for (const int split : {1, 2, 3, 4, 8}) {
      const WgmmaWork work(1, 4, k, 0, split, 10);
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
        const WgmmaWork work(1, tiles, k, stream, 1, workers);
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
