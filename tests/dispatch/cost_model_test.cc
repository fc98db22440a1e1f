#include "dispatch/cost_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>

#include "dispatch/cholesky.h"
#include "nibble/error.h"

namespace nibble {
namespace {

using testing::HasSubstr;

const std::vector<std::pair<int64_t, int64_t>> kShapes = {
    {4096, 4096}, {8192, 2048}, {2048, 8192}, {16384, 4096}};

Timing timing(const std::string& device, const std::string& backend, int64_t n, int64_t k,
              int64_t m, double us) {
  Timing t;
  t.device = device;
  t.backend = backend;
  t.kernel = backend;
  t.n = n;
  t.k = k;
  t.m = m;
  t.tflops = 2e-6 * static_cast<double>(n) * static_cast<double>(k) * static_cast<double>(m) / us;
  return t;
}

// Backend "near" has the lower overhead, "far" the higher peak: each wins at one end.
double true_us(const std::string& backend, int64_t n, int64_t k, int64_t m) {
  const double work = static_cast<double>(n) * static_cast<double>(k);
  return (backend == "near" ? 2.0 : 3.0) + work * 0.5625e-6 / 7.0 +
         2e-6 * work * static_cast<double>(m) / (backend == "near" ? 3000.0 : 5000.0);
}

std::vector<Timing> timings(const std::string& device, double factor = 1) {
  std::vector<Timing> all;
  for (const auto& [n, k] : kShapes) {
    for (int64_t m = 1; m <= 4096; m *= 4) {
      for (const char* b : {"near", "far"}) {
        all.push_back(timing(device, b, n, k, m, factor * true_us(b, n, k, m)));
      }
    }
  }
  return all;
}

TEST(Cholesky, SolvesAndRefusesWhatIsNotPositiveDefinite) {
  std::vector<double> a = {4, 0, 0, 2, 5, 0, -2, 1, 6};  // lower triangle
  const std::vector<double> x = solve_positive_definite(a, {4 + 4 - 6, 2 + 10 + 3, -2 + 2 + 18});
  EXPECT_NEAR(x[0], 1, 1e-12);
  EXPECT_NEAR(x[1], 2, 1e-12);
  EXPECT_NEAR(x[2], 3, 1e-12);
  std::vector<double> bad = {1, 0, 2, 1};
  EXPECT_THROW(solve_positive_definite(bad, {1, 1}), Error);
}

TEST(Roofline, GradientIsTheDerivative) {
  const GemmWork work = gemm_work("any", 300, 5000, 3000, 148);
  const Roofline at = {std::log(2.0), std::log(0.7), std::log(6.0), std::log(4000.0)};
  Roofline gradient;
  log_us(at, work, &gradient);
  for (int c = 0; c < kRooflineConstants; ++c) {
    Roofline up = at;
    Roofline down = at;
    up[c] += 1e-5;
    down[c] -= 1e-5;
    EXPECT_NEAR((log_us(up, work) - log_us(down, work)) / 2e-5, gradient[c], 1e-8) << c;
  }
}

TEST(Roofline, CountsWavesOfTiles) {
  // 148 tiles of 128 rows fill the chip once, one more row takes another wave.
  EXPECT_DOUBLE_EQ(gemm_work("any", 1, 148 * 128, 2000, 148).waves_k, 2.0);
  EXPECT_DOUBLE_EQ(gemm_work("any", 1, 148 * 128 + 1, 2000, 148).waves_k, 4.0);
  // TensorRT-LLM's small kernel: 16 rows of activations a tile.
  EXPECT_DOUBLE_EQ(gemm_work("trtllm_8x4", 17, 148 * 128, 2000, 148).waves_k, 4.0);
}

TEST(CostModel, RepeatsItsTimingsAndPredictsAShapeBetween) {
  const std::vector<Timing> fit = timings("B200");
  const CostModel model(fit, "B200");
  for (const Timing& t : fit) {
    EXPECT_NEAR(std::log(model.estimate_us(t.kernel, t.m, t.n, t.k) / t.us()), 0, 0.03);
  }
  for (const int64_t m : {1, 3, 100, 3000}) {
    for (const char* b : {"near", "far"}) {
      EXPECT_NEAR(std::log(model.estimate_us(b, m, 6144, 4096) / true_us(b, 6144, 4096, m)), 0, 0.2)
          << b << " " << m;
    }
  }
}

TEST(CostModel, FitsTheSameTwice) {
  const std::vector<Timing> fit = timings("B200");
  EXPECT_EQ(CostModel(fit, "B200").estimate_us("near", 7, 5120, 5120),
            CostModel(fit, "B200").estimate_us("near", 7, 5120, 5120));
}

TEST(CostModel, TakesTheNearestDeviceThatKnowsTheBackends) {
  std::vector<Timing> fit = timings("B200");
  const std::vector<Timing> other = timings("GB10", 20);
  fit.insert(fit.end(), other.begin(), other.end());
  EXPECT_EQ(CostModel(fit, "B200").source(), "B200");
  EXPECT_EQ(CostModel(fit, "B300").source(), "B200");
  EXPECT_EQ(CostModel(fit, "SM121").source(), "GB10");
  EXPECT_EQ(CostModel(fit, "a chip of next year").source(), "B200");
  fit.push_back(timing("GB10", "third", 4096, 4096, 1, 9));
  const std::vector<std::string> wanted = {"near", "third"};
  EXPECT_EQ(CostModel(fit, "B300", wanted).source(), "GB10");
}

TEST(CostModel, ASiblingChangesTimesAndNotTheOrder) {
  const std::vector<Timing> fit = timings("B200");
  const CostModel known(fit, "B200");
  const CostModel faster(fit, "B300");  // 1.5 times the peak, the same memory
  const auto speedup = [&](const char* b, int64_t m) {
    return known.estimate_us(b, m, 8192, 8192) / faster.estimate_us(b, m, 8192, 8192);
  };
  EXPECT_NEAR(speedup("near", 1), 1.0, 0.01);
  EXPECT_GT(speedup("near", 8192), 1.2);
  EXPECT_NEAR(speedup("near", 8192), speedup("far", 8192), 1e-9);
  const CostModel stranger(fit, "a chip of next year");
  EXPECT_DOUBLE_EQ(stranger.estimate_us("far", 64, 8192, 8192),
                   known.estimate_us("far", 64, 8192, 8192));
}

TEST(CostModel, RefusesWhatItCannotKnow) {
  const std::vector<Timing> fit = timings("B200");
  EXPECT_THROW(CostModel({}, "B200"), Error);
  const std::vector<Timing> many(CostModel::kMaxTimings + 1, fit[0]);
  EXPECT_THROW(CostModel(many, "B200"), Error);
  std::vector<Timing> kernels;
  for (size_t i = 0; i <= CostModel::kMaxKernels; ++i) {
    kernels.push_back(timing("B200", fmt::format("b{}", i), 64, 64, 1, 3));
  }
  EXPECT_THROW(CostModel(kernels, "B200"), Error);
  try {
    CostModel(fit, "B200").estimate_us("cudnn", 1, 64, 64);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
    EXPECT_THAT(e.what(), HasSubstr("'cudnn'"));
  }
}

TEST(ChoiceTable, HoldsTheModelsChoices) {
  const CostModel model(timings("B200"), "B200");
  const std::vector<std::string> backends = {"far", "near"};
  const ChoiceTable table(model, backends, 8192, 4096, 4096);
  EXPECT_EQ(backends[table.choose(1)], "near");
  EXPECT_EQ(backends[table.choose(4096)], "far");
  EXPECT_EQ(table.choose(4096), table.choose(int64_t{1} << 40));
  for (int64_t m = 1; m <= ChoiceTable::kDense; ++m) {
    const bool near =
        model.estimate_us("near", m, 8192, 4096) < model.estimate_us("far", m, 8192, 4096);
    EXPECT_EQ(table.choose(m), near ? 1u : 0u) << m;
  }
  EXPECT_THROW(ChoiceTable(model, {}, 8192, 4096, 4096), Error);
  EXPECT_THROW(ChoiceTable(model, backends, 0, 4096, 4096), Error);
}

// The promise is 0.2 us a call; ten times that is still refused on a busy machine.
TEST(ChoiceTable, ChoosesInNoTime) {
  const std::vector<std::string> backends = {"far", "near"};
  const ChoiceTable table(CostModel(timings("B200"), "B200"), backends, 8192, 4096, 8192);
  constexpr int kCalls = 1'000'000;
  size_t sum = 0;
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kCalls; ++i) sum += table.choose(i % 8192);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_GT(sum, 0u);
  EXPECT_LT(seconds.count() / kCalls, 2e-6);
}

}  // namespace
}  // namespace nibble
