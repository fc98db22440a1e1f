// What the case table does not reach: refusals, captured graphs, dependent launches, more elements
// than 31 bits count. Runs on a machine with a CUDA device (ctest -L gpu); skipped elsewhere.
#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "base/cuda.h"
#include "base/cuda_check.h"
#include "dispatch/ops.h"
#include "dispatch/tables.h"
#include "formats/float16.h"
#include "formats/scale_layout.h"
#include "nibble/error.h"

namespace nibble {
namespace {

using testing::HasSubstr;

class CudaQuantize : public testing::Test {
 protected:
  void SetUp() override {
    try {
      device_.emplace(Device::cuda());
    } catch (const Error& e) {
      GTEST_SKIP() << e.what();
    }
  }

  // An [m, k] bf16 matrix and room for what comes out of it, all on the device.
  struct Matrix {
    int64_t m, k;
    cuda::Buffer src, codes, scales;
  };
  Matrix matrix(int64_t m, int64_t k, int64_t scale_rows = 0) const {
    return {m,
            k,
            {0, static_cast<size_t>(2 * m * k)},
            {0, static_cast<size_t>(m * k / 2 + 2 * kGuard)},
            {0, scale_room(std::max(m, scale_rows), k)}};
  }
  static size_t scale_room(int64_t m, int64_t k) {
    return static_cast<size_t>(scale_bytes(ScaleLayout::kSwizzled128x4, m, k / 16) + 2 * kGuard);
  }
  static QuantizeArgs args(const Matrix& x) {
    QuantizeArgs a;
    a.desc = {.layout = ScaleLayout::kSwizzled128x4, .m = x.m, .k = x.k};
    a.src = {x.src.get(), DType::kBF16, x.m, x.k, x.k};
    a.codes = x.codes.data() + kGuard;
    a.scales = x.scales.data() + kGuard;
    return a;
  }
  template <class T>
  cuda::Buffer upload(const std::vector<T>& host) const {
    cuda::Buffer out(0, host.size() * sizeof(T));
    cuda::copy(out.get(), host.data(), host.size() * sizeof(T), device_->stream().cuda);
    device_->synchronize();
    return out;
  }
  // Fills every byte that may be written and the guards around them.
  void poison(const Matrix& x) const {
    cuda::fill(x.codes.get(), 0xA5, x.m * x.k / 2 + 2 * kGuard, device_->stream().cuda);
    cuda::fill(x.scales.get(), 0xA5, scale_room(x.m, x.k), device_->stream().cuda);
  }
  // Of a matrix as large as its memory, with 128x4 scales or fewer.
  bool guards_hold(const Matrix& x) const {
    const auto holds = [&](const uint8_t* p) {
      return std::ranges::all_of(fetch(p, kGuard), [](uint8_t byte) { return byte == 0xA5; });
    };
    return holds(x.codes.data()) && holds(x.codes.data() + kGuard + x.m * x.k / 2) &&
           holds(x.scales.data()) && holds(x.scales.data() + scale_room(x.m, x.k) - kGuard);
  }
  std::string error_of(const QuantizeArgs& a) const {
    try {
      quantize(a, *device_);
      return "no error";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
      return e.what();
    }
  }
  std::vector<uint8_t> fetch(const uint8_t* p, size_t bytes) const {
    std::vector<uint8_t> host(bytes);
    cuda::copy(host.data(), p, bytes, device_->stream().cuda);
    device_->synchronize();
    return host;
  }

  static constexpr int64_t kGuard = 4096;
  std::optional<Device> device_;
};

TEST_F(CudaQuantize, RefusesPointersThatAKernelCannotUse) {
  const Matrix x = matrix(4, 64);
  const QuantizeArgs good = args(x);
  EXPECT_EQ(error_of(good), "no error");
  std::vector<uint16_t> host(4 * 64);
  QuantizeArgs bad = good;
  bad.src.data = host.data();
  EXPECT_THAT(error_of(bad),
              HasSubstr("quantize: src must be memory of CUDA device 0, found host"));
  bad = good;
  bad.src.data = static_cast<uint8_t*>(bad.src.data) + 1;
  EXPECT_THAT(error_of(bad), HasSubstr("quantize: src must be aligned to 2 bytes"));
  bad = good;
  bad.codes += 4;
  EXPECT_THAT(error_of(bad), HasSubstr("quantize: codes must be aligned to 8 bytes"));
  bad = good;
  bad.scales += 8;
  EXPECT_THAT(error_of(bad), HasSubstr("quantize: scales must be aligned to 16 bytes"));
  bad = good;
  bad.desc.global = GlobalScale::kMemory;
  bad.scale_memory = reinterpret_cast<float*>(host.data());
  EXPECT_THAT(error_of(bad), HasSubstr("quantize: scale_memory must be memory of CUDA device 0"));
  device_->synchronize();
}

TEST_F(CudaQuantize, RefusesRowsThatFusedOpsAndExpertsCannotRead) {
  const Matrix x = matrix(4, 64);
  QuantizeArgs a = args(x);
  a.desc.experts = 2;
  EXPECT_EQ(error_of(a), "no error");
  a.src.stride = 63;
  EXPECT_THAT(error_of(a), HasSubstr("rows 63 elements apart"));
  a.src = {x.src.data() + 2, DType::kBF16, 4, 32, 64};
  a.desc.k = 32;
  EXPECT_THAT(error_of(a), HasSubstr("need the rows of src aligned to 16 bytes"));
  a = args(x);
  a.desc.experts = 3;
  EXPECT_THAT(error_of(a), HasSubstr("m must be a multiple of experts = 3, found 4"));
  a = args(x);
  a.desc.input = QuantizeInput::kRmsNorm;
  EXPECT_THAT(error_of(a), HasSubstr("norm_weight is null"));
  a.desc.has_residual = true;
  std::vector<float> host(64);
  a.norm_weight = host.data();
  a.residual = a.src;
  EXPECT_THAT(error_of(a), HasSubstr("norm_weight must be memory of CUDA device 0"));
  a.desc.global = GlobalScale::kComputed;
  EXPECT_THAT(error_of(a), HasSubstr("global scale of silu_mul and rms_norm must be given"));
  device_->synchronize();
}

// A graph of a call that computes its experts' scales gives what a call gives, however often and
// with whatever in its workspace.
TEST_F(CudaQuantize, RepeatsInAGraph) {
  constexpr int64_t kM = 300, kK = 544;
  const Matrix x = matrix(kM, kK, kM + 3 * 128), once = matrix(kM, kK, kM + 3 * 128);
  std::mt19937 random(7);
  std::vector<uint16_t> values(kM * kK);
  for (uint16_t& v : values) v = float_to_bf16(static_cast<float>(random() % 997) * 0.01f - 5.0f);
  const cuda::Buffer offsets = upload(std::vector<int32_t>{0, 17, 17, 300});
  const cuda::Buffer global(0, 3 * sizeof(float)), global_once(0, 3 * sizeof(float));
  const auto all = impls<QuantizeImpl>();
  const auto impl = std::ranges::find(all, "cuda_quantize", &QuantizeImpl::name);
  ASSERT_NE(impl, all.end());
  const auto call = [&](const Matrix& to, const cuda::Buffer& scales) {
    QuantizeArgs a = args(to);
    a.src.data = x.src.get();
    a.desc.experts = 3;
    a.desc.ragged = true;
    a.desc.global = GlobalScale::kComputed;
    a.expert_offsets = static_cast<const int32_t*>(offsets.get());
    a.scale_memory = static_cast<float*>(scales.get());
    return a;
  };
  QuantizeArgs a = call(x, global);
  const size_t bytes = impl->workspace_bytes(a.desc, {}, device_->info());
  const cuda::Buffer workspace(0, bytes);
  a.workspace = workspace.get();
  Stream stream = device_->stream();
  auto* cuda_stream = static_cast<cudaStream_t>(stream.cuda);
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  NIBBLE_CUDA_CHECK(cudaStreamBeginCapture(cuda_stream, cudaStreamCaptureModeThreadLocal));
  for (const bool pdl : {false, true, true}) {
    stream.pdl = pdl;
    impl->launch(a, impl->candidates(a.desc, device_->info())[0], stream);
  }
  NIBBLE_CUDA_CHECK(cudaStreamEndCapture(cuda_stream, &graph));
  NIBBLE_CUDA_CHECK(cudaGraphInstantiate(&exec, graph, 0));
  for (int round = 0; round < 3; ++round) {
    for (uint16_t& v : values) v ^= static_cast<uint16_t>(random() % 128);
    cuda::copy(x.src.get(), values.data(), values.size() * 2, stream.cuda);
    cuda::fill(workspace.get(), 0xFF, bytes, stream.cuda);
    poison(x);
    poison(once);
    NIBBLE_CUDA_CHECK(cudaGraphLaunch(exec, cuda_stream));
    quantize(call(once, global_once), *device_);
    device_->synchronize();
    EXPECT_EQ(fetch(global.data(), 12), fetch(global_once.data(), 12));
    EXPECT_EQ(fetch(x.codes.data(), kM * kK / 2 + 2 * kGuard),
              fetch(once.codes.data(), kM * kK / 2 + 2 * kGuard));
    const int64_t scales = (128 + 384) * 36;  // of 17 and 283 rows of 34 blocks
    EXPECT_EQ(fetch(x.scales.data() + kGuard, scales), fetch(once.scales.data() + kGuard, scales));
  }
  NIBBLE_CUDA_CHECK(cudaGraphExecDestroy(exec));
  NIBBLE_CUDA_CHECK(cudaGraphDestroy(graph));
}

// The last rows of a matrix of 2^31 + 2^26 elements, quantized with it and by themselves, as they
// are, as an expert's and behind an RMSNorm.
TEST_F(CudaQuantize, CountsElementsIn64Bits) {
  constexpr int64_t kK = 32768, kRows = (int64_t{1} << 16) + 2048, kLast = 256;
  const Matrix x = matrix(kRows, kK), last = matrix(kLast, kK);
  std::vector<uint16_t> row(kK);
  for (int64_t i = 0; i < kK; ++i) {
    row[i] = float_to_bf16(static_cast<float>(i % 251) * 0.01f - 1.0f);
  }
  auto* stream = device_->stream().cuda;
  cuda::fill(x.src.get(), 0, 2 * kRows * kK, stream);
  for (int64_t i = 0; i < kLast; ++i) {
    row[i] = float_to_bf16(static_cast<float>(i));
    cuda::copy(x.src.data() + (kRows - kLast + i) * 2 * kK, row.data(), 2 * kK, stream);
    cuda::copy(last.src.data() + i * 2 * kK, row.data(), 2 * kK, stream);
    device_->synchronize();
  }
  const cuda::Buffer weight = upload(std::vector<float>(kK, 0.5f));
  const cuda::Buffer offsets =
      upload(std::vector<int32_t>{0, 128, static_cast<int32_t>(kRows - kLast), kRows});
  const auto plain = [](QuantizeArgs& a) { a.desc.experts = 0; };
  const auto ragged = [&](QuantizeArgs& a) {
    if (a.desc.m == kLast) return;
    a.desc.experts = 3;
    a.desc.ragged = true;
    a.expert_offsets = static_cast<const int32_t*>(offsets.get());
  };
  const auto norm = [&](QuantizeArgs& a) {
    a.desc.input = QuantizeInput::kRmsNorm;
    a.norm_weight = static_cast<const float*>(weight.get());
  };
  const auto same = [&](const char* what, const auto& change) {
    poison(x);
    for (const Matrix* of : {&x, &last}) {
      QuantizeArgs a = args(*of);
      change(a);
      quantize(a, *device_);
    }
    const auto found = fetch(x.codes.data() + kGuard + (kRows - kLast) * kK / 2, kLast * kK / 2);
    EXPECT_EQ(found, fetch(last.codes.data() + kGuard, kLast * kK / 2)) << what;
    EXPECT_GT(std::ranges::count_if(found, [](uint8_t c) { return c != 0; }), kLast * kK / 4);
    EXPECT_EQ(fetch(x.scales.data() + kGuard + (kRows - kLast) * kK / 16, kLast * kK / 16),
              fetch(last.scales.data() + kGuard, kLast * kK / 16))
        << what;
    EXPECT_TRUE(guards_hold(x)) << what;
  };
  same("plain", plain);
  same("ragged", ragged);
  same("rms_norm", norm);
}

// RMSNorm of many rows has a kernel of its own, which the case table is too small for: it gives the
// bytes that the same rows give in a small call, NaN and what is too large for a scale included. A
// global scale of 1 has products that fp32 rounds to a tie. Rows of 6000 and 6016 keep their
// weights in shared memory; those of 8208 are too long for that kernel, and their last ones are
// taken one by one.
TEST_F(CudaQuantize, ManyRowsGiveTheBytesOfFew) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  constexpr int64_t few = 128;
  // k: two units of sixteen elements a thread, three, five; warps that are full and not. As many
  // rows for each SM as every CTA takes twice, and some more.
  for (const auto& [k, rows_of_sm] : {std::pair<int64_t, int64_t>{1040, 150},
                                      {2560, 100},
                                      {2880, 66},
                                      {4096, 68},
                                      {4640, 50},
                                      {5120, 50},
                                      {6000, 68},
                                      {6016, 68},
                                      {7168, 34},
                                      {7200, 68},
                                      {8208, 33}}) {
    const int64_t rows = rows_of_sm * device_->info().num_sms + 24;
    const Matrix x = matrix(rows, k), part = matrix(few, k);
    std::vector<uint16_t> values(static_cast<size_t>(rows * k));
    for (int64_t i = 0; i < rows; ++i) {
      const float size = i % 7 == 0 ? 1e-3f : 1.0f;
      for (int64_t j = 0; j < k; ++j) {
        const float e = normal(random);
        values[i * k + j] = float_to_bf16(j == 5 && i % 11 == 0 ? 1e4f * e : size * e);
      }
    }
    values[static_cast<size_t>(130 * k + 3)] = 0x7FC0;
    cuda::copy(x.src.get(), values.data(), values.size() * 2, device_->stream().cuda);
    device_->synchronize();
    std::vector<float> weight(static_cast<size_t>(k));
    for (float& w : weight) w = 1.0f + 0.1f * normal(random);
    const cuda::Buffer weights = upload(weight);
    for (const auto& [format, scale] : {std::pair{WeightFormat::kNvfp4, 0.003f},
                                        {WeightFormat::kNvfp4, 1.0f},
                                        {WeightFormat::kMxfp4, 1.0f}}) {
      // The third: so few that half of the CTAs have any.
      for (const auto& [layout, m_all] : {std::pair{ScaleLayout::kSwizzled128x4, rows},
                                          {ScaleLayout::kSwizzled8x4, rows},
                                          {ScaleLayout::kSwizzled128x4, rows / 4 - 3}}) {
        if (format == WeightFormat::kMxfp4 && k % 32 != 0) continue;
        poison(x);
        const auto run = [&](const Matrix& of, int64_t first, int64_t m, ScaleLayout scales) {
          QuantizeArgs a = args(of);
          a.desc.m = m;
          a.desc.format = format;
          a.desc.layout = scales;
          a.desc.input = QuantizeInput::kRmsNorm;
          a.src = {x.src.data() + first * k * 2, DType::kBF16, m, k, k};
          a.global_decode_scale = scale;
          a.norm_weight = static_cast<const float*>(weights.get());
          quantize(a, *device_);
        };
        run(x, 0, m_all, layout);
        if (m_all == rows) {
          EXPECT_TRUE(guards_hold(x));
        }
        const int64_t cols = k / block_size(format), padded_cols = padded_scale_cols(layout, cols);
        // Of every round of the CTAs, and the last.
        for (int64_t first = 128; first < m_all + 2 * few; first += 3 * few) {
          first = std::min(first, m_all / few * few);
          const int64_t m = std::min(few, m_all - first);
          poison(part);
          run(part, first, m, ScaleLayout::kLinear);  // never the kernel for many
          const auto linear = fetch(part.scales.data() + kGuard, m * cols);
          std::vector<uint8_t> scales(static_cast<size_t>(scale_bytes(layout, m, cols)));
          for (int64_t row = 0; row < m; ++row) {
            for (int64_t col = 0; col < cols; ++col) {
              scales[scale_offset(layout, row, col, cols)] = linear[row * cols + col];
            }
          }
          const auto same = [&](const cuda::Buffer& all, int64_t at,
                                const std::vector<uint8_t>& wanted) {
            const auto bytes = fetch(all.data() + kGuard + at, wanted.size());
            const auto [is, should] = std::ranges::mismatch(bytes, wanted);
            if (is == bytes.end()) return;
            ADD_FAILURE() << "k = " << k << ", from row " << first << ": byte "
                          << is - bytes.begin() << " of " << bytes.size() << " is " << int{*is}
                          << ", alone " << int{*should};
          };
          same(x.codes, first * k / 2, fetch(part.codes.data() + kGuard, m * k / 2));
          same(x.scales, first * padded_cols, scales);
        }
      }
    }
  }
}

}  // namespace
}  // namespace nibble
