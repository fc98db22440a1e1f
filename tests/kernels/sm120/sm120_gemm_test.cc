// The table entry of the sm_120 GEMM: what it refuses and why, its candidates, workspace and costs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "formats/scale_layout.h"
#include "kernels/sm120/emulated.h"
#include "kernels/sm120/gemm_params.h"
#include "kernels/sm120/list.h"

namespace nibble::sm120 {
namespace {

using testing::HasSubstr;

DeviceInfo chip(int sm) {
  DeviceInfo device;
  device.kind = DeviceKind::kCuda;
  device.sm = sm;
  device.num_sms = 188;
  device.bandwidth_gbps = 1790;
  return device;
}

GemmDesc desc(int64_t m, int64_t n = 4096, int64_t k = 4096) {
  return {.m = m,
          .n = n,
          .k = k,
          .weight = WeightFormat::kNvfp4,
          .layout = WeightLayout::kSm120,
          .activation = ActivationMode::kFp4,
          .a_type = DType::kBF16,
          .d_type = DType::kBF16};
}

const GemmImpl& gemm() { return kernels().gemm[0]; }

TEST(Sm120Gemm, RunsOnItsChipsOnly) {
  for (const int sm : {120, 121}) EXPECT_TRUE(gemm().can_implement(desc(1), chip(sm)));
  for (const int sm : {80, 90, 100, 103, 110, 122}) {
    EXPECT_THAT(gemm().can_implement(desc(1), chip(sm)).reason,
                HasSubstr("needs compute capability 12.0 or 12.1, found sm_" + std::to_string(sm)));
    EXPECT_FALSE(kernels().weight_layout[0].can_prepare({}, chip(sm)));
  }
  EXPECT_FALSE(gemm().can_implement(desc(1), DeviceInfo{}));
  const GemmImpl& emulated = emulated_kernels().gemm[0];
  EXPECT_TRUE(emulated.can_implement(desc(1), chip(90)));
  EXPECT_FALSE(emulated.can_implement(desc(1), chip(120)));
}

TEST(Sm120Gemm, NamesTheRuleThatIsBroken) {
  const auto reason = [](const GemmDesc& d) { return gemm().can_implement(d, chip(120)).reason; };
  GemmDesc d = desc(1);
  d.k = 48;
  EXPECT_THAT(reason(d), HasSubstr("k must be a multiple of 32, found 48"));
  d = desc(1);
  d.activation = ActivationMode::k16Bit;
  EXPECT_THAT(reason(d), HasSubstr("mode 16bit"));
  d = desc(1);
  d.layout = WeightLayout::kSm90;
  EXPECT_THAT(reason(d), HasSubstr("reads layout sm120, found sm90"));
  d = desc(1);
  d.a_type = DType::kF8E4M3;
  EXPECT_THAT(reason(d), HasSubstr("a must be"));
  d = desc(1);
  d.d_type = DType::kI32;
  EXPECT_THAT(reason(d), HasSubstr("d must be"));
  d = desc(1, 1 << 21);
  EXPECT_THAT(reason(d), HasSubstr("n must be at most 1048560, found 2097152"));
  WeightTensor fp8;
  fp8.format = WeightFormat::kF8;
  EXPECT_THAT(kernels().weight_layout[0].can_prepare(fp8, chip(120)).reason,
              HasSubstr("found fp8"));
}

TEST(Sm120Gemm, CandidatesAreDistinctAndFit) {
  GemmDesc d = desc(1);
  std::set<std::string> names;
  for (const KernelConfig& c : gemm().candidates(d, chip(120))) {
    EXPECT_TRUE(names.insert(to_string(c)).second) << to_string(c);
  }
  EXPECT_EQ(names.size(), 4 * std::size(kConfigs));
  // Half a block of NVFP4 would be left over of 16 rows.
  d.silu_mul = true;
  d.d_type = DType::kU8;
  for (const KernelConfig& c : gemm().candidates(d, chip(120))) EXPECT_GE(c.tile_n, 32);
}

TEST(Sm120Gemm, WorkspaceHoldsPartsAndQuantizedActivations) {
  GemmDesc d = desc(5, 100, 1056);
  KernelConfig c = gemm().candidates(d, chip(120))[0];
  const int64_t activations = 5 * 1056 / 2 + scale_bytes(ScaleLayout::kSwizzled8x4, 5, 66);
  const auto bytes = [&] { return static_cast<int64_t>(gemm().workspace_bytes(d, c, chip(120))); };
  EXPECT_GE(bytes(), activations);
  c.split_k = 4;
  EXPECT_GE(bytes(), activations + int64_t{4} * 5 * 112 * 4);
  d.a_type = DType::kU8;
  EXPECT_LT(bytes(), int64_t{4} * 5 * 112 * 4 + 256);
  d.k = 96;  // one block of k: nothing to split
  EXPECT_EQ(bytes(), 0);
}

// As nvcc makes it: two instructions for 8 tokens, 16 rows and 128 of k (sm120_sass_test).
TEST(Sm120Gemm, CountsTheWorkOfATile) {
  GemmDesc d = desc(5, 4096, 1024);
  d.a_type = DType::kU8;
  KernelConfig c = {.tile_m = 8, .tile_n = 16, .tile_k = 1024, .stages = 4, .split_k = 1};
  TileWork w = gemm().work(d, c);
  EXPECT_EQ(w.tiles, 256);
  EXPECT_EQ(w.mma, 2 * 8);
  EXPECT_EQ(w.bytes, 16 * 1024 * 9 / 16 + 5 * 1024 * 9 / 16 + 5 * 16 * 2);
  c.split_k = 4;
  w = gemm().work(d, c);
  EXPECT_EQ(w.tiles, 4 * 256);
  EXPECT_EQ(w.mma, 2 * 2);
  EXPECT_EQ(w.bytes, 16 * 256 * 9 / 16 + 5 * 256 * 9 / 16 + 5 * 16 * 4);
  // All tiles together multiply the problem, padding included, and nothing twice.
  for (const int64_t m : {1, 17, 300}) {
    d = desc(m, 4096, 4096);
    for (const KernelConfig& config : gemm().candidates(d, chip(120))) {
      const TileWork all = gemm().work(d, config);
      const int64_t tiles_m = (m + config.tile_m - 1) / config.tile_m;
      EXPECT_EQ(all.tiles * all.mma * 16 * 8 * 64, tiles_m * config.tile_m * 4096 * 4096)
          << to_string(config);
    }
  }
}

// Predictions, so only what must hold of any: the floor of memory and of the tensor cores, and that
// small tiles win for few tokens, large ones for many.
TEST(Sm120Gemm, CostsFollowTheRoofline) {
  const auto best = [](int64_t m) {
    const GemmDesc d = desc(m, 8192, 8192);
    const auto all = gemm().candidates(d, chip(120));
    const KernelConfig* least = &all[0];
    for (const KernelConfig& c : all) {
      const double us = gemm().estimate_us(d, c, chip(120));
      const double bytes_us = 8192.0 * 8192 * 0.5625 / 1790e3;
      EXPECT_GT(us, bytes_us);
      EXPECT_GT(us, 2e-6 * static_cast<double>(m) * 8192 * 8192 / 2000);  // TFLOP/s of the sheet
      if (us < gemm().estimate_us(d, *least, chip(120))) least = &c;
    }
    return *least;
  };
  EXPECT_EQ(best(1).tile_m, 8);
  EXPECT_EQ(best(4096).tile_m, 128);
  EXPECT_EQ(best(4096).split_k, 1);
}

}  // namespace
}  // namespace nibble::sm120
