// How the sm_120 GEMM shares out tiles, k and shared memory: everything once, nothing twice.
#include <gtest/gtest.h>

#include "kernels/sm120/gemm_params.h"

namespace nibble::sm120 {
namespace {

TEST(Sm120Tiles, PartsOfATileCoverItsK) {
  for (const int64_t k : {32, 128, 160, 1056, 7168, 18432}) {
    for (const int split : {1, 2, 4, 8}) {
      int at = 0;
      for (int share = 0; share < split; ++share) {
        const KRange range(k, split, share);
        EXPECT_EQ(range.begin, at);
        EXPECT_LE(range.end - range.begin, longest_k_range(k, split));
        at = range.end;
      }
      EXPECT_EQ(at, k_blocks(k));
    }
  }
}

// Activations in the ring or resident, weights, and the sums that take the ring's place.
TEST(Sm120Tiles, SharedMemoryHoldsItsPartsSideBySide) {
  for (const GemmConfig& c : kConfigs) {
    EXPECT_LE(c.warps_n * c.warps_k * 32, kMaxThreads);
    EXPECT_LE(GemmShared(c, 0).bytes, kSharedLimit);
    for (const int resident : {0, 1, 7, 56}) {
      const GemmShared at(c, resident);
      const int blocks = resident > 0 ? resident : c.warps_k;
      EXPECT_GE(at.token_stride, blocks * kBlockK / 2);
      EXPECT_EQ(at.token_stride / 16 % 2, 1) << "ldmatrix would meet bank conflicts";
      EXPECT_EQ(at.token_stride % 16, 0);
      EXPECT_GE(at.scale_stride, blocks * kBlockK / 16);
      EXPECT_EQ(at.scales, c.tokens * at.token_stride);
      const int activations = at.scales + c.tokens * at.scale_stride;
      EXPECT_LE(activations, resident > 0 ? at.ring : at.weights);
      EXPECT_EQ((resident > 0 ? at.weights : at.ring), 0);
      EXPECT_EQ(at.stage, at.weights + c.warps_n * c.warps_k * kBlockBytes);
      EXPECT_EQ(at.stage % 128, 0);
      EXPECT_EQ(at.ring % 128, 0);
      EXPECT_GE(at.bytes, at.ring + c.stages * at.stage);
      EXPECT_GE(at.sum_stride, c.warps_n * kBlockRows);
      EXPECT_GE(at.bytes, c.warps_k * c.tokens * at.sum_stride * 4);
    }
  }
}

TEST(Sm120Tiles, BlocksOfWeightsLieSideBySide) {
  const int64_t n = 100, k = 300;
  int64_t at = 0;
  for (int64_t kb = 0; kb < k_blocks(k); ++kb) {
    for (int64_t rb = 0; rb < row_blocks(n); ++rb, at += kBlockBytes) {
      EXPECT_EQ(block_offset(rb, kb, n), at);
    }
  }
  EXPECT_EQ(packed_bytes(n, k), at);
}

TEST(Sm120Tiles, RowsOfGateAndUpShareABlock) {
  const int64_t n = 36;
  std::vector<int> seen(static_cast<size_t>(row_blocks(n)) * kBlockRows);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t at = packed_row(i, n, true);
    ++seen.at(static_cast<size_t>(at));
    EXPECT_EQ(packed_row(i, n, false), i);
    if (i < n / 2) {
      EXPECT_EQ(packed_row(i + n / 2, n, true), at + 8);
    }
  }
  for (const int times : seen) EXPECT_LE(times, 1);
}

}  // namespace
}  // namespace nibble::sm120
