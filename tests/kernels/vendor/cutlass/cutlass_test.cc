// The table entry of CUTLASS's GEMM: what it refuses and why, its candidates, workspace and costs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <set>

#include "formats/scale_layout.h"
#include "kernels/vendor/cutlass/gemm.h"
#include "kernels/vendor/cutlass/list.h"

namespace nibble::cutlass_gemm {
namespace {

using testing::HasSubstr;

constexpr int kChips[] = {100, 103, 120, 121};

DeviceInfo chip(int sm) {
  DeviceInfo device;
  device.kind = DeviceKind::kCuda;
  device.sm = sm;
  device.num_sms = sm < 120 ? 148 : 188;
  device.bandwidth_gbps = sm < 120 ? 8000 : 1790;
  return device;
}

GemmDesc desc(int64_t m, int64_t n = 4096, int64_t k = 4096) {
  return {.m = m,
          .n = n,
          .k = k,
          .weight = WeightFormat::kNvfp4,
          .layout = WeightLayout::kFp4Rows,
          .activation = ActivationMode::kFp4,
          .a_type = DType::kBF16,
          .d_type = DType::kBF16};
}

const GemmImpl& gemm() { return kernels().gemm[0]; }

std::string reason(const GemmDesc& d, int sm = 100) {
  return gemm().can_implement(d, chip(sm)).reason;
}

TEST(CutlassGemm, RunsOnTheChipsItIsBuiltFor) {
  for (const int sm : kChips) EXPECT_EQ(reason(desc(1), sm), "");
  for (const int sm : {80, 90, 101, 110, 122}) {
    EXPECT_THAT(reason(desc(1), sm),
                HasSubstr("needs compute capability 10.0, 10.3, 12.0 or 12.1, found sm_" +
                          std::to_string(sm)));
    EXPECT_TRUE(gemm().candidates(desc(1), chip(sm)).empty());
  }
  EXPECT_THAT(gemm().can_implement(desc(1), DeviceInfo{}).reason, HasSubstr("CUDA device only"));
}

TEST(CutlassGemm, NamesTheRuleThatIsBroken) {
  GemmDesc d = desc(1, 4096, 48);
  EXPECT_THAT(reason(d), HasSubstr("k must be a multiple of 32, found 48"));
  EXPECT_THAT(reason(desc(1, 4096, 0)), HasSubstr("k must be a multiple of 32, found 0"));
  EXPECT_THAT(reason(desc(0)), HasSubstr("m must be at least 1, found 0"));
  EXPECT_THAT(reason(desc(1, 4100)), HasSubstr("n must be a multiple of 8 for BF16, found 4100"));
  EXPECT_THAT(reason(desc(int64_t{1} << 31)), HasSubstr("m, n and k must be at most"));
  d = desc(1, 4100);
  d.d_type = DType::kF32;
  EXPECT_EQ(reason(d), "");
  d.n = 4098;
  EXPECT_THAT(reason(d), HasSubstr("n must be a multiple of 4 for F32, found 4098"));
  EXPECT_THAT(reason(d, 120), HasSubstr("has no kernel from nvfp4 to F32 for sm_120"));
  d = desc(1);
  d.d_type = DType::kF16;
  EXPECT_THAT(reason(d), HasSubstr("d must be BF16 or F32, found F16"));
  d = desc(1);
  d.layout = WeightLayout::kSm120;
  EXPECT_THAT(reason(d), HasSubstr("reads layout fp4_rows, found sm120"));
  d = desc(1);
  d.activation = ActivationMode::k16Bit;
  EXPECT_THAT(reason(d), HasSubstr("mode 16bit"));
  d = desc(1);
  d.silu_mul = true;
  EXPECT_THAT(reason(d), HasSubstr("silu"));
  d = desc(1);
  d.a_type = DType::kU8;
  d.a_layout = ScaleLayout::kSwizzled8x4;
  EXPECT_THAT(reason(d), HasSubstr("scales of a must be"));
  d.a_layout = ScaleLayout::kSwizzled128x4;
  EXPECT_EQ(reason(d), "");
}

TEST(CutlassGemm, CandidatesAreDistinctAndOfTheChip) {
  for (const int sm : kChips) {
    std::set<std::string> names;
    bool ultra = false;
    for (const KernelConfig& c : gemm().candidates(desc(1), chip(sm))) {
      EXPECT_TRUE(names.insert(to_string(c)).second) << to_string(c);
      EXPECT_GE(c.stages, 2) << to_string(c);
      ultra |= c.tile_k == 768;
    }
    EXPECT_GE(names.size(), 2);
    EXPECT_EQ(ultra, sm == 103);
  }
}

// CUTLASS's own rules agree with ours: it takes every kernel at the edge of what we take, and none
// that is misaligned.
TEST(CutlassGemm, EveryKernelTakesWhatTheTableTakes) {
  const auto kernels_all = all_kernels();
  EXPECT_GE(kernels_all.size(), 12U);
  alignas(128) static uint8_t memory[256];
  static float scale = 1;
  for (const Kernel* kernel : kernels_all) {
    const int multiple = kernel->d_type == DType::kF32 ? 4 : 8;
    const auto takes = [&](int m, int n, int k) {
      Problem p;
      p.m = m;
      p.n = n;
      p.k = k;
      p.weights = p.weight_scales = p.tokens = p.token_scales = memory;
      p.alpha = &scale;
      p.token_stride = k / 2;
      p.d = memory;
      p.d_stride = n;
      p.num_sms = 148;
      return kernel->takes(p);
    };
    for (const auto& [m, n, k] :
         {std::array{1, multiple, 32}, std::array{3, 200, 96}, std::array{1000, 4096, 7168}}) {
      EXPECT_TRUE(takes(m, n, k)) << kernel->tile.rows << " x " << kernel->tile.tokens;
    }
    EXPECT_FALSE(takes(1, 128, 48));
    EXPECT_FALSE(takes(1, 128 + multiple / 2, 64));
  }
}

TEST(CutlassGemm, WorkspaceHoldsActivationsAndWhatCutlassAsksFor) {
  for (const int sm : kChips) {
    GemmDesc d = desc(5, 256, 4096);
    d.num_segments = 2;
    const auto activations = 5 * 4096 / 2 + scale_bytes(ScaleLayout::kSwizzled128x4, 5, 256);
    bool splits = false;
    for (const KernelConfig& c : gemm().candidates(d, chip(sm))) {
      const auto bytes = static_cast<int64_t>(gemm().workspace_bytes(d, c, chip(sm)));
      EXPECT_GE(bytes, activations) << to_string(c);
      EXPECT_LT(bytes, activations + (16 << 20)) << to_string(c);
      if (c.split_k < 2) continue;
      splits = true;
      // Sums of a tile that another part adds to.
      EXPECT_GE(bytes, activations + 4 * c.tile_n * c.tile_m) << to_string(c);
    }
    EXPECT_TRUE(splits);
    // Given activations need none, and tiles that are not split leave nothing but alpha.
    d.a_type = DType::kU8;
    d.a_layout = ScaleLayout::kSwizzled128x4;
    for (const KernelConfig& c : gemm().candidates(d, chip(sm))) {
      if (c.split_k > 1) continue;
      EXPECT_LT(gemm().workspace_bytes(d, c, chip(sm)), 4096) << to_string(c);
    }
  }
}

// A plan reserves for the largest m and for all rows, segments being part of them.
TEST(CutlassGemm, WorkspaceGrowsWithRowsAndTokens) {
  for (const Kernel* kernel : all_kernels()) {
    for (const int split : {1, 2, 8}) {
      if (split > 1 && !kernel->tile.splits) continue;
      const auto bytes = [&](int m, int n) {
        Problem p;
        p.m = m;
        p.n = n;
        p.k = 8192;
        p.split_k = split;
        p.num_sms = 148;
        return kernel->workspace_bytes(p);
      };
      for (int step = 1; step < 40; ++step) {
        EXPECT_LE(bytes(24 * step, 4096), bytes(24 * (step + 1), 4096));
        EXPECT_LE(bytes(64, 136 * step), bytes(64, 136 * (step + 1)));
      }
      if (split == 1) {
        EXPECT_EQ(bytes(1024, 4096), 0U);
      }
    }
  }
}

// Predictions, so only what must hold of any: the floor of memory and of the tensor cores, and that
// small tiles win for few tokens, large ones for many.
TEST(CutlassGemm, CostsFollowTheRoofline) {
  const auto best = [](int64_t m, int sm) {
    const GemmDesc d = desc(m, 8192, 8192);
    const DeviceInfo device = chip(sm);
    const auto all = gemm().candidates(d, device);
    const auto cost = [&](const KernelConfig& c) { return gemm().estimate_us(d, c, device); };
    for (const KernelConfig& c : all) {
      EXPECT_GT(cost(c), 8192.0 * 8192 * 0.5625 / (device.bandwidth_gbps * 1e3)) << to_string(c);
      const double peak = sm == 100 ? 10'000 : sm == 103 ? 15'000 : 2000;  // of the sheets
      EXPECT_GT(cost(c), 2e-6 * static_cast<double>(m) * 8192 * 8192 / peak) << to_string(c);
    }
    return *std::ranges::min_element(all, {}, cost);
  };
  for (const int sm : {100, 103}) {
    EXPECT_EQ(best(1, sm).tile_m, 64);
    EXPECT_EQ(best(8192, sm).tile_m, 256);
    EXPECT_EQ(best(8192, sm).split_k, 1);
  }
  EXPECT_EQ(best(8192, 103).tile_k, 768);
  EXPECT_EQ(best(1, 120).tile_m, 32);
  EXPECT_EQ(best(8192, 120).tile_m, 128);
}

// The published rows of "cutlass" that the constants stand for, to what a roofline can say.
TEST(CutlassGemm, CostsAreNearThePublishedOnes) {
  const struct {
    int64_t m, n, k;
    double us;
  } kPublished[] = {{1, 28672, 4096, 17.5},    {64, 28672, 4096, 13.1}, {4096, 28672, 4096, 199.6},
                    {512, 8192, 8192, 22.0},   {64, 7168, 2048, 4.1},   {4096, 7168, 2048, 25.2},
                    {2048, 18432, 7168, 96.0}, {512, 7168, 18432, 27.9}};
  for (const auto& row : kPublished) {
    GemmDesc d = desc(row.m, row.n, row.k);
    d.a_type = DType::kU8;  // timed without quantizing
    d.weight = WeightFormat::kNvfp4;
    double least = 1e9;
    for (const KernelConfig& c : gemm().candidates(d, chip(100))) {
      least = std::min(least, gemm().estimate_us(d, c, chip(100)));
    }
    EXPECT_GT(least, 0.6 * row.us) << to_string(d);
    EXPECT_LT(least, 1.4 * row.us) << to_string(d);
  }
}

}  // namespace
}  // namespace nibble::cutlass_gemm
