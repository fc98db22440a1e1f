// What the case table does not reach: refusals, captured graphs, more elements than 31 bits count.
// Runs on a machine with a CUDA device (ctest -L gpu); skipped elsewhere.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "base/cuda.h"
#include "dispatch/ops.h"
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
  Matrix matrix(int64_t m, int64_t k) const {
    const int64_t bytes = scale_bytes(ScaleLayout::kSwizzled128x4, m, k / 16);
    return {m,
            k,
            {0, static_cast<size_t>(2 * m * k)},
            {0, static_cast<size_t>(m * k / 2)},
            {0, static_cast<size_t>(bytes)}};
  }
  static QuantizeArgs args(const Matrix& x) {
    QuantizeArgs a;
    a.desc = {.layout = ScaleLayout::kSwizzled128x4, .m = x.m, .k = x.k};
    a.src = {x.src.get(), DType::kBF16, x.m, x.k, x.k};
    a.codes = x.codes.data();
    a.scales = x.scales.data();
    return a;
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

// The last rows of a matrix of 2^31 + 2^26 elements, quantized with it and by themselves.
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
  cuda::fill(x.codes.get(), 0xFF, kRows * kK / 2, stream);
  quantize(args(x), *device_);
  quantize(args(last), *device_);
  const auto found = fetch(x.codes.data() + (kRows - kLast) * kK / 2, kLast * kK / 2);
  EXPECT_EQ(found, fetch(last.codes.data(), kLast * kK / 2));
  EXPECT_GT(std::ranges::count_if(found, [](uint8_t c) { return c != 0; }), kLast * kK / 4);
  EXPECT_EQ(fetch(x.scales.data() + (kRows - kLast) * kK / 16, kLast * kK / 16),
            fetch(last.scales.data(), kLast * kK / 16));
}

}  // namespace
}  // namespace nibble
