// What the case table does not reach: refusals, captured graphs, dependent launches, more
// elements than 31 bits count. Runs on a machine with a CUDA device (ctest -L gpu); skipped
// elsewhere.
#include <cuda_runtime_api.h>
#include <gmock/gmock.h>

#include <random>

#include "base/cuda_check.h"
#include "formats/float16.h"
#include "tests/kernels/cuda/quantize_fixture.h"

namespace nibble {
namespace {

using testing::HasSubstr;

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
  const size_t bytes = impl().workspace_bytes(a.desc, {}, device_->info());
  const cuda::Buffer workspace(0, bytes);
  a.workspace = workspace.get();
  Stream stream = device_->stream();
  auto* cuda_stream = static_cast<cudaStream_t>(stream.cuda);
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  NIBBLE_CUDA_CHECK(cudaStreamBeginCapture(cuda_stream, cudaStreamCaptureModeThreadLocal));
  for (const bool pdl : {false, true, true}) {
    stream.pdl = pdl;
    impl().launch(a, impl().candidates(a.desc, device_->info())[0], stream);
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

}  // namespace
}  // namespace nibble
