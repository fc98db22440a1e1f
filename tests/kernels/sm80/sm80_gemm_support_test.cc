// What the portable GEMM takes, as far as that can be said without a device.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "kernels/sm80/gemm.h"

namespace nibble::sm80 {
namespace {

using testing::HasSubstr;

GemmDesc desc(int64_t n) {
  return {.m = 1,
          .n = n,
          .k = 128,
          .weight = WeightFormat::kNvfp4,
          .layout = WeightLayout::kSm90,
          .activation = ActivationMode::k16Bit,
          .a_type = DType::kBF16,
          .d_type = DType::kBF16};
}

DeviceInfo chip(int sm) {
  DeviceInfo info;
  info.kind = DeviceKind::kCuda;
  info.sm = sm;
  info.num_sms = 108;
  return info;
}

TEST(Sm80Gemm, RunsOnEveryChipFromAmpereOn) {
  for (const int sm : {80, 89, 90, 100, 120}) {
    EXPECT_EQ(kMmaGemm.can_implement(desc(256), chip(sm)).reason, "") << sm;
  }
  EXPECT_THAT(kMmaGemm.can_implement(desc(256), chip(75)).reason, HasSubstr("found sm_75"));
  EXPECT_THAT(kMmaGemm.can_implement(desc(256), DeviceInfo{}).reason,
              HasSubstr("CUDA device only"));
}

TEST(Sm80Gemm, RefusesMoreRowsThanAGridHasTilesOf) {
  int64_t rows = INT32_MAX;
  for (const KernelConfig& c : kMmaGemm.candidates(desc(16), chip(80))) {
    rows = std::min<int64_t>(rows, c.tile_n);
  }
  const int64_t most = 65535 * rows;
  EXPECT_EQ(kMmaGemm.can_implement(desc(most), chip(80)).reason, "");
  EXPECT_EQ(kMmaGemm.can_implement(desc(most + 16), chip(80)).reason,
            "n must be at most " + std::to_string(most) + ", found " + std::to_string(most + 16));
}

}  // namespace
}  // namespace nibble::sm80
