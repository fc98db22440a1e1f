// What the case table does not reach: refusals, more elements than 31 bits count, captured graphs.
// Runs on a machine with an sm_90 device (ctest -L gpu); skipped elsewhere.
#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <optional>
#include <string>
#include <vector>

#include "base/cuda.h"
#include "formats/float16.h"
#include "nibble/error.h"
#include "nibble/gemm.h"
#include "tests/cuda_device_test.h"

namespace nibble {
namespace {

using testing::HasSubstr;

constexpr uint8_t kOnes = 0x22;      // two e2m1 codes of 1
constexpr uint8_t kScaleOne = 0x38;  // e4m3

class Sm90Gemm : public CudaDeviceTest {
 protected:
  void SetUp() override {
    CudaDeviceTest::SetUp();
    if (IsSkipped()) return;
    if (device_->info().sm != 90) GTEST_SKIP() << "sm_" << device_->info().sm;
  }

  // [n, k] of ones.
  LinearWeight ones(int64_t n, int64_t k) const {
    const std::vector<uint8_t> codes(n * k / 2, kOnes), scales(n * k / 16, kScaleOne);
    WeightTensor t;
    t.name = "ones";
    t.format = WeightFormat::kNvfp4;
    t.n = n;
    t.k = k;
    t.codes = codes.data();
    t.scales = scales.data();
    t.segments = {{0, 1.0f}};
    return prepare(t, *device_);
  }
  GemmPlan plan(int64_t n, int64_t k, int64_t max_m, const float* bias = nullptr) const {
    return {
        ones(n, k), *device_, {.max_m = max_m, .a = DType::kBF16, .d = DType::kBF16, .bias = bias}};
  }
  cuda::Buffer zeros(size_t bytes) const {
    cuda::Buffer memory(0, bytes);
    cuda::fill(memory.get(), 0, bytes, device_->stream().cuda);
    return memory;
  }
  // Row `row` of k bf16 elements: `value` in the first 16, zero behind.
  void set_row(const cuda::Buffer& a, int64_t k, int64_t row, float value) const {
    const std::vector<uint16_t> head(16, float_to_bf16(value));
    cuda::copy(a.data() + row * k * 2, head.data(), 32, device_->stream().cuda);
    device_->synchronize();
  }
  float at(const cuda::Buffer& d, int64_t index) const {
    uint16_t bits = 0;
    cuda::copy(&bits, d.data() + index * 2, 2, device_->stream().cuda);
    device_->synchronize();
    return bf16_to_float(bits);
  }
  void expect_refusal(const GemmPlan& plan, const void* a, int64_t stride, void* d, int64_t m,
                      const std::string& message) const {
    try {
      plan.run(a, stride, d, 64, m);
      ADD_FAILURE() << "took it, expected: " << message;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
      EXPECT_THAT(e.what(), HasSubstr(message));
    }
    device_->synchronize();  // nothing was launched that could fail
  }
};

TEST_F(Sm90Gemm, RefusesPointersItCannotUse) {
  const auto a = zeros(64 * 80 * 2 + 64), d = zeros(64 * 64 * 2);
  std::vector<uint16_t> host(64 * 64);
  for (const int64_t m : {1, 33}) {  // both kernels
    const GemmPlan p = plan(64, 64, m);
    expect_refusal(p, nullptr, 64, d.get(), m, "a is null");
    expect_refusal(p, host.data(), 64, d.get(), m, "a must be memory of CUDA device 0, found host");
    expect_refusal(p, a.get(), 64, host.data(), m, "d must be memory of CUDA device 0, found host");
    expect_refusal(p, a.data() + 2, 64, d.get(), m, "a must be aligned to 16 bytes");
    expect_refusal(p, a.get(), 64, d.data() + 1, m, "d must be aligned to 2 bytes");
    expect_refusal(p, a.get(), 64, d.get(), 0, "m must be 1 ..");
    expect_refusal(p, a.get(), 64, d.get(), m + 1, "m must be 1 ..");
  }
  const GemmPlan p = plan(64, 64, 33);
  expect_refusal(p, a.get(), 68, d.get(), 33, "a multiple of 8 elements apart, found 68");
  expect_refusal(p, a.get(), 56, d.get(), 33, "expected at least 64");
  const std::vector<float> bias(64);
  expect_refusal(plan(64, 64, 2, bias.data()), a.get(), 64, d.get(), 2,
                 "bias must be memory of CUDA device 0, found host");
}

TEST_F(Sm90Gemm, RefusesMemoryOfAnotherDevice) {
  std::optional<cuda::Buffer> elsewhere;
  try {
    elsewhere.emplace(1, 64 * 64 * 2);
  } catch (const Error& e) {
    GTEST_SKIP() << "one device only: " << e.what();
  }
  const auto d = zeros(64 * 64 * 2);
  expect_refusal(plan(64, 64, 2), elsewhere->get(), 64, d.get(), 2,
                 "a must be memory of CUDA device 0, found device 1");
}

// A of 2.5e9 elements: rows on either side of 2^31 elements and the last.
TEST_F(Sm90Gemm, TakesActivationsOfMoreThan31Bits) {
  constexpr int64_t kM = 300000, kN = 16, kK = 8192, kEdge = (int64_t{1} << 31) / kK;
  const auto a = zeros(kM * kK * 2), d = zeros(kM * kN * 2);
  const GemmPlan p = plan(kN, kK, kM);
  set_row(a, kK, 0, 1);
  set_row(a, kK, kEdge - 1, 2);
  set_row(a, kK, kEdge, 3);
  set_row(a, kK, kM - 1, 4);
  p.run(a.get(), kK, d.get(), kN, kM);
  for (const auto& [row, want] : {std::pair<int64_t, float>{0, 16},
                                  {1, 0},
                                  {kEdge - 1, 32},
                                  {kEdge, 48},
                                  {kM - 2, 0},
                                  {kM - 1, 64}}) {
    EXPECT_EQ(at(d, row * kN), want) << "row " << row;
    EXPECT_EQ(at(d, row * kN + kN - 1), want) << "row " << row;
  }
}

TEST_F(Sm90Gemm, WritesOutputsOfMoreThan31Bits) {
  constexpr int64_t kM = 300000, kN = 8192, kK = 64, kEdge = (int64_t{1} << 31) / kN;
  const auto a = zeros(kM * kK * 2);
  const cuda::Buffer d(0, kM * kN * 2);
  cuda::fill(d.get(), 0xFF, kM * kN * 2, device_->stream().cuda);
  const GemmPlan p = plan(kN, kK, kM);
  set_row(a, kK, kEdge - 1, 2);
  set_row(a, kK, kEdge, 3);
  set_row(a, kK, kM - 1, 4);
  p.run(a.get(), kK, d.get(), kN, kM);
  for (const auto& [row, want] :
       {std::pair<int64_t, float>{0, 0}, {kEdge - 1, 32}, {kEdge, 48}, {kM - 2, 0}, {kM - 1, 64}}) {
    EXPECT_EQ(at(d, row * kN), want) << "row " << row;
    EXPECT_EQ(at(d, row * kN + kN - 1), want) << "row " << row;
  }
}

// Weights of 2.2e9 elements, by both kernels: the last rows lie behind 2^30 bytes.
TEST_F(Sm90Gemm, ReadsWeightsOfMoreThan31Bits) {
  constexpr int64_t kN = 262144 + 4096, kK = 8192;
  const LinearWeight weight = ones(kN, kK);
  for (const int64_t m : {1, 40}) {
    const auto a = zeros(m * kK * 2), d = zeros(m * kN * 2);
    set_row(a, kK, m - 1, 1);
    const GemmPlan p(weight, *device_, {.max_m = m, .a = DType::kBF16, .d = DType::kBF16});
    p.run(a.get(), kK, d.get(), kN, m);
    for (const int64_t row : {int64_t{0}, kN / 2, int64_t{262143}, int64_t{262144}, kN - 1}) {
      EXPECT_EQ(at(d, (m - 1) * kN + row), 16) << "row " << row << ", m = " << m;
    }
  }
}

// Tiles of two kinds in one grid: of what is left of the tokens too, the last of them, and nothing
// behind. A choice also serves a few tokens less than it was made for.
TEST_F(Sm90Gemm, WritesTheTokensOfBothKindsOfTiles) {
  constexpr int64_t kN = 7168, kK = 2048, kGuard = 8;
  const GemmPlan p = plan(kN, kK, 640);
  for (const int64_t m : {241, 256, 300, 384, 420, 448, 481, 512, 513, 576, 640}) {
    EXPECT_THAT(p.choice(m).config, HasSubstr("rest_m")) << m;
    const auto a = zeros(m * kK * 2);
    const cuda::Buffer d(0, (m + kGuard) * kN * 2);
    cuda::fill(d.get(), 0xFF, (m + kGuard) * kN * 2, device_->stream().cuda);
    for (int64_t row = 0; row < m; ++row) set_row(a, kK, row, static_cast<float>(row % 7));
    p.run(a.get(), kK, d.get(), kN, m);
    std::vector<uint16_t> out((m + kGuard) * kN);
    cuda::copy(out.data(), d.get(), out.size() * 2, device_->stream().cuda);
    device_->synchronize();
    for (int64_t i = 0; i < (m + kGuard) * kN; ++i) {
      const int64_t row = i / kN;
      const uint16_t want = row < m ? float_to_bf16(static_cast<float>(row % 7 * 16)) : 0xFFFF;
      ASSERT_EQ(out[i], want) << "m = " << m << ", token " << row << ", row " << i % kN;
    }
  }
}

// A kernel is put on a stream as a graph of one node (base/graph_launch.h), except into another.
TEST_F(Sm90Gemm, IsCapturedIntoAGraph) {
  constexpr int64_t kN = 64, kK = 64;
  void* const stream = device_->stream().cuda;
  for (const int64_t m : {1, 40}) {  // both kernels
    const auto a = zeros(m * kK * 2), d = zeros(m * kN * 2);
    const GemmPlan p = plan(kN, kK, m);
    set_row(a, kK, m - 1, 1);
    p.run(a.get(), kK, d.get(), kN, m);
    EXPECT_EQ(at(d, m * kN - 1), 16);
    cuda::begin_capture(stream);
    p.run(a.get(), kK, d.get(), kN, m);
    const cuda::OwnedGraph graph(0, cuda::end_capture(stream));
    set_row(a, kK, m - 1, 2);
    EXPECT_EQ(at(d, m * kN - 1), 16) << "capturing ran it";
    cuda::launch_graph(graph.get(), stream);
    EXPECT_EQ(at(d, m * kN - 1), 32);
  }
}

TEST_F(Sm90Gemm, RunsOnAThreadThatIsNewToCuda) {
  constexpr int64_t kN = 64, kK = 64;
  for (const int64_t m : {1, 40}) {  // both kernels
    const auto a = zeros(m * kK * 2), d = zeros(m * kN * 2);
    const GemmPlan p = plan(kN, kK, m);
    set_row(a, kK, m - 1, 1);
    std::async(std::launch::async, [&] { p.run(a.get(), kK, d.get(), kN, m); }).get();
    EXPECT_EQ(at(d, m * kN - 1), 16);
    std::vector<uint16_t> host(64);
    std::async(std::launch::async, [&] {
      expect_refusal(p, host.data(), kK, d.get(), m, "found host");
    }).get();
  }
}

// Each GEMM multiplies what the one in front of it wrote, on the stream and in a graph.
TEST_F(Sm90Gemm, WaitsForTheKernelInFrontUnderPdl) {
  constexpr int64_t kN = 64, kK = 64, kCalls = 3;
  void* const stream = device_->stream().cuda;
  for (const int64_t m : {1, 40, 300}) {
    const auto a = zeros(m * kK * 2), x = zeros(m * kN * 2), y = zeros(m * kN * 2);
    const auto d = zeros(m * kN * 2);
    const GemmPlan p = plan(kN, kK, m);
    const auto chain = [&] {
      p.run(a.get(), kK, x.get(), kN, m);
      p.run(x.get(), kK, y.get(), kN, m);
      p.run(y.get(), kK, d.get(), kN, m);
    };
    device_->use_pdl(true);
    for (float value = 1; value < 8; ++value) {
      set_row(a, kK, m - 1, value);
      chain();
      EXPECT_EQ(at(d, m * kN - 1), value * 16 * kN * kN) << "m = " << m;
    }
    cuda::begin_capture(stream);
    for (int call = 0; call < kCalls; ++call) chain();
    const cuda::OwnedGraph graph(0, cuda::end_capture(stream));
    for (float value = 8; value < 16; ++value) {
      set_row(a, kK, m - 1, value);
      cuda::launch_graph(graph.get(), stream);
      EXPECT_EQ(at(d, m * kN - 1), value * 16 * kN * kN) << "m = " << m;
    }
    device_->use_pdl(false);
  }
}

TEST_F(Sm90Gemm, StreamsDoNotWaitForOneAnother) {
  constexpr int64_t kN = 64, kK = 64;
  const Device other = Device::cuda();
  const auto a = zeros(kK * 2), d = zeros(kN * 2), d_other = zeros(kN * 2);
  set_row(a, kK, 0, 1);
  const GemmPlan here = plan(kN, kK, 1);
  const GemmPlan there(ones(kN, kK), other, {.max_m = 1, .a = DType::kBF16, .d = DType::kBF16});
  std::promise<void> may_go_on;
  std::future<void> signal = may_go_on.get_future();
  const auto wait = [](void* promised) {
    static_cast<std::future<void>*>(promised)->wait_for(std::chrono::seconds(20));
  };
  ASSERT_EQ(cudaLaunchHostFunc(static_cast<cudaStream_t>(device_->stream().cuda), wait, &signal),
            cudaSuccess);
  for (int call = 0; call < 3; ++call) here.run(a.get(), kK, d.get(), kN, 1);
  for (int call = 0; call < 3; ++call) there.run(a.get(), kK, d_other.get(), kN, 1);
  const auto begin = std::chrono::steady_clock::now();
  other.synchronize();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
  may_go_on.set_value();
  EXPECT_EQ(at(d, kN - 1), 16);
  EXPECT_EQ(at(d_other, kN - 1), 16);
}

}  // namespace
}  // namespace nibble
