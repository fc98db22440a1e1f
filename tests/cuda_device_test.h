// Tests on the machine's first CUDA device; skipped where there is none.
#pragma once

#include <gtest/gtest.h>

#include <optional>

#include "nibble/device.h"
#include "nibble/error.h"

namespace nibble {

class CudaDeviceTest : public testing::Test {
 protected:
  void SetUp() override {
    try {
      device_.emplace(Device::cuda());
    } catch (const Error& e) {
      GTEST_SKIP() << e.what();
    }
  }

  std::optional<Device> device_;
};

}  // namespace nibble
