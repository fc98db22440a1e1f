#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "nibble/error.h"
#include "nibble/gemm.h"

namespace nibble {
namespace {

using testing::HasSubstr;

// [2, 16] NVFP4: row 0 all ones (code 2) at scale 1 (0x38), row 1 all twos (code 4) at scale 0.5.
struct TinyWeight {
  std::vector<uint8_t> codes = std::vector<uint8_t>(16);
  std::vector<uint8_t> scales = {0x38, 0x30};
  WeightTensor tensor;
  TinyWeight() {
    std::fill_n(codes.begin(), 8, 0x22);
    std::fill_n(codes.begin() + 8, 8, 0x44);
    tensor.name = "tiny";
    tensor.format = WeightFormat::kNvfp4;
    tensor.n = 2;
    tensor.k = 16;
    tensor.codes = codes.data();
    tensor.scales = scales.data();
    tensor.segments = {{0, 2.0f}, {1, 10.0f}};
  }
};

std::string prepare_error(const WeightTensor& tensor) {
  try {
    prepare(tensor, Device::cpu(1));
    return "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    return e.what();
  }
}

TEST(GemmPlan, EverySegmentKeepsItsScale) {
  const Device device = Device::cpu(2);
  const TinyWeight w;
  const GemmPlan plan(prepare(w.tensor, device), device, {.max_m = 40});
  for (int64_t m = 1; m <= 40; ++m) {
    std::vector<float> a(m * 16, 0.25f);
    std::vector<float> d(m * 2, NAN);
    plan.run(a.data(), 16, d.data(), 2, m);
    for (int64_t i = 0; i < m; ++i) {
      EXPECT_FLOAT_EQ(d[2 * i], 16 * 0.25f * 1 * 2) << m;
      EXPECT_FLOAT_EQ(d[2 * i + 1], 16 * 0.25f * 2 * 0.5f * 10) << m;
    }
  }
}

TEST(GemmPlan, AddsToTheOutput) {
  const Device device = Device::cpu(1);
  const TinyWeight w;
  const GemmPlan plan(prepare(w.tensor, device), device, {.add = true});
  const std::vector<float> a(16, 1.0f);
  std::vector<float> d = {100, 200};
  plan.run(a.data(), 16, d.data(), 2, 1);
  EXPECT_FLOAT_EQ(d[0], 132);
  EXPECT_FLOAT_EQ(d[1], 360);
}

TEST(GemmPlan, ForcedImplementationRunsAndSaysSo) {
  const TinyWeight w;
  const Device device = Device::cpu(1, "gemm=ref_gemm");
  const GemmPlan plan(prepare(w.tensor, device), device, {});
  const KernelChoice choice = plan.choice(1);
  EXPECT_EQ(choice.impl, "ref_gemm");
  EXPECT_EQ(choice.reason, "forced by NIBBLE_FORCE_IMPL");
}

TEST(GemmPlan, RefusesMOutsideThePlan) {
  const Device device = Device::cpu(1);
  const TinyWeight w;
  const GemmPlan plan(prepare(w.tensor, device), device, {.max_m = 3});
  std::vector<float> a(64), d(8);
  for (const int64_t m : {0, 4}) {
    try {
      plan.run(a.data(), 16, d.data(), 2, m);
      FAIL() << m;
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), HasSubstr("m must be 1 .. 3, found " + std::to_string(m)));
    }
  }
}

TEST(Prepare, NamesWhatIsWrong) {
  TinyWeight w;
  EXPECT_EQ(prepare_error(w.tensor), "no error");
  w.tensor.k = 24;
  EXPECT_EQ(prepare_error(w.tensor),
            "prepare: tiny: k must be a multiple of 16 for nvfp4, found 24");
  w.tensor.k = 16;
  w.tensor.scales = nullptr;
  EXPECT_EQ(prepare_error(w.tensor), "prepare: tiny: scales is null");
  w = TinyWeight();
  w.tensor.codes = w.codes.data();
  w.tensor.scales = w.scales.data();
  w.tensor.segments = {{0, 1.0f}, {2, 1.0f}};
  EXPECT_EQ(prepare_error(w.tensor), "prepare: tiny: segment 1 begins at row 2, expected 1 .. 1");
  w.tensor.segments.clear();
  EXPECT_EQ(prepare_error(w.tensor), "prepare: tiny: expected a segment that begins at row 0");
}

TEST(ChooseGemm, SaysWhatEveryOtherImplementationLacks) {
  const Device device = Device::cpu(1);
  const KernelChoice choice = choose_gemm(WeightFormat::kNvfp4, 64, 64, 1, device, {});
  EXPECT_FALSE(choice.impl.empty());
  for (const std::string& refusal : choice.refusals) EXPECT_THAT(refusal, HasSubstr(": "));
}

}  // namespace
}  // namespace nibble
