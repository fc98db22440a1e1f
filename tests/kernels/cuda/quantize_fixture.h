// Matrices on a CUDA device and what the quantizer makes of them, for its tests.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/cuda.h"
#include "dispatch/ops.h"
#include "dispatch/tables.h"
#include "formats/scale_layout.h"
#include "nibble/error.h"
#include "tests/cuda_device_test.h"

namespace nibble {

class CudaQuantize : public CudaDeviceTest {
 protected:
  // An [m, k] bf16 matrix and room for what comes out of it, all on the device.
  struct Matrix {
    int64_t m, k;
    cuda::Buffer src, codes, scales;
  };
  Matrix matrix(int64_t m, int64_t k, int64_t scale_rows = 0, DType type = DType::kBF16) const {
    return {m,
            k,
            {0, size_of(type) * static_cast<size_t>(m * k)},
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
  // The rows of `all` from `first` on, a multiple of 128, have the codes and scales that the m rows
  // of `alone` have, whose scales are linear.
  void expect_rows(const Matrix& all, int64_t first, const Matrix& alone, int64_t m,
                   WeightFormat format, ScaleLayout layout) const {
    const int64_t cols = all.k / block_size(format);
    const auto linear = fetch(alone.scales.data() + kGuard, m * cols);
    std::vector<uint8_t> scales(static_cast<size_t>(scale_bytes(layout, m, cols)));
    for (int64_t row = 0; row < m; ++row) {
      for (int64_t col = 0; col < cols; ++col) {
        scales[scale_offset(layout, row, col, cols)] = linear[row * cols + col];
      }
    }
    const auto same = [&](const char* what, const uint8_t* found,
                          const std::vector<uint8_t>& wanted) {
      const auto bytes = fetch(found, wanted.size());
      const auto [is, should] = std::ranges::mismatch(bytes, wanted);
      if (is == bytes.end()) return;
      ADD_FAILURE() << "k = " << all.k << ", from row " << first << ": byte " << is - bytes.begin()
                    << " of " << bytes.size() << " of " << what << " is " << int{*is} << ", alone "
                    << int{*should};
    };
    same("codes", all.codes.data() + kGuard + first * all.k / 2,
         fetch(alone.codes.data() + kGuard, m * all.k / 2));
    same("scales", all.scales.data() + kGuard + scale_bytes(layout, first, cols), scales);
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

  static const QuantizeImpl& impl() {
    const auto all = impls<QuantizeImpl>();
    const auto found = std::ranges::find(all, "cuda_quantize", &QuantizeImpl::name);
    if (found == all.end()) throw Error(ErrorCode::kUnsupported, "cuda_quantize is not built");
    return *found;
  }

  static constexpr int64_t kGuard = 4096;
};

}  // namespace nibble
