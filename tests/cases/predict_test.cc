// Predictions for chips that are not there: who is asked about what, and that the numbers agree.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "cases/case_file.h"
#include "cases/gemm_timing.h"
#include "dispatch/chips.h"
#include "dispatch/tables.h"
#include "nibble/bench.h"
#include "nibble/gemm.h"

namespace nibble {
namespace {

std::vector<PredictedRow> rows() {
  std::vector<PredictedRow> all;
  predict([&](const PredictedRow& row) { all.push_back(row); });
  return all;
}

TEST(Predict, HasEveryPublishedSizeOnItsChips) {
  std::map<std::string, int> fits;
  std::set<std::tuple<std::string, int64_t, int64_t, int64_t>> published;
  for (const PredictedRow& r : rows()) {
    EXPECT_GT(r.us, 0);
    EXPECT_NEAR(r.tflops * r.us, 2e-6 * static_cast<double>(r.m * r.n * r.k),
                1e-6 * r.tflops * r.us);
    if (r.source == "fit") {
      ++fits[r.chip];
      EXPECT_TRUE(r.desc == "as B200" || r.desc == "as SM100") << r.desc;
      EXPECT_EQ(r.weight, WeightFormat::kNvfp4);
    }
    EXPECT_EQ(r.published.empty(), r.published_tflops == 0);
    if (!r.published.empty()) {
      EXPECT_EQ(r.chip, "B200");
      EXPECT_EQ(r.published.find("torch"), std::string::npos);
      published.insert({r.chip, r.n, r.k, r.m});
    }
  }
  EXPECT_EQ(published.size(), 86);  // 30 sizes of one table, 56 of the other
  EXPECT_EQ(fits.size(), 2);        // nobody timed the others
  EXPECT_EQ(fits["B200"], fits["B300"]);
  EXPECT_GT(fits["B200"], 86);
}

// With the shape left out: 0.71 to 1.27 of the fastest when this was written, 1.01 in the median.
TEST(Predict, TheFitForetellsWhatWasPublished) {
  std::vector<double> ratios;
  for (const PredictedRow& r : rows()) {
    if (r.source != "fit" || r.published.empty()) continue;
    ratios.push_back(r.tflops / r.published_tflops);
    EXPECT_GT(ratios.back(), 0.65) << r.n << " " << r.k << " " << r.m;
    EXPECT_LT(ratios.back(), 1.4) << r.n << " " << r.k << " " << r.m;
  }
  ASSERT_EQ(ratios.size(), 86);
  std::sort(ratios.begin(), ratios.end());
  EXPECT_NEAR(ratios[ratios.size() / 2], 1, 0.05);
  EXPECT_LT(ratios.front(), 0.99);  // else the fit had seen what it foretells
  EXPECT_GT(ratios.back(), 1.05);
}

// Of this build's implementations: those that take the chip, and none twice.
TEST(Predict, EstimatesAreOfWhatTheChipWouldRun) {
  std::set<std::string> kernels;
  std::set<std::tuple<std::string, WeightFormat, int64_t, int64_t, int64_t>> seen;
  for (const PredictedRow& r : rows()) {
    if (r.source != "estimate") continue;
    EXPECT_TRUE(seen.insert({r.chip, r.weight, r.n, r.k, r.m}).second);
    kernels.insert(r.impl);
    EXPECT_NE(r.desc.find(r.m <= 32 ? "a=8x4" : "a=128x4"), std::string::npos) << r.desc;
    const DeviceInfo device = device_info(*find_chip(r.chip));
    EXPECT_TRUE(has_native_fp4(device.sm));
    // No faster than the data sheet's tensor cores.
    EXPECT_LT(r.tflops, find_chip(r.chip)->fp4_peak);
  }
  const auto sm120 = [](const GemmImpl& impl) { return impl.name == "sm120_fp4_gemm"; };
  EXPECT_EQ(kernels.contains("sm120_fp4_gemm"), std::ranges::any_of(impls<GemmImpl>(), sm120));
}

// What timing hands over when activations are given in FP4.
TEST(TimedGemm, RunsOnQuantizedActivations) {
  const Device device = Device::cpu(1);
  for (const WeightFormat format : {WeightFormat::kNvfp4, WeightFormat::kMxfp4}) {
    for (const WeightLayoutImpl& layout : weight_layouts()) {
      if (layout.layout != WeightLayout::kCanonical) continue;
      const cases::TimedGemm gemm({.weight = format, .n = 32, .k = 4096, .max_m = 3}, DType::kF32,
                                  layout, device);
      for (const ScaleLayout a_layout : {ScaleLayout::kLinear, ScaleLayout::kSwizzled128x4}) {
        GemmDesc desc{.m = 3,
                      .n = 32,
                      .k = 4096,
                      .weight = format,
                      .activation = ActivationMode::kFp4,
                      .a_type = DType::kU8,
                      .d_type = DType::kF32,
                      .a_layout = a_layout};
        const GemmImpl& ref = impls<GemmImpl>().back();
        ASSERT_TRUE(ref.can_implement(desc, device.info()));
        gemm.launch(ref, {}, desc)(0);
      }
    }
  }
}

}  // namespace
}  // namespace nibble
