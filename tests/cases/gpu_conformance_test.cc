// The case table on a CUDA device: every implementation that runs there, against the reference on
// the host. Skipped where there is no device.
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>

#include "nibble/error.h"
#include "nibble/selftest.h"

namespace nibble {
namespace {

TEST(GpuConformance, EveryCudaImplementationAgreesWithItsReference) {
  std::optional<Device> device;
  try {
    device.emplace(Device::cuda());
  } catch (const Error& e) {
    GTEST_SKIP() << e.what();
  }
  std::map<std::string, int> passed;
  selftest(*device, "", [&](const CaseResult& r) {
    EXPECT_NE(r.status, CaseResult::Status::kFailed)
        << r.impl << "/" << r.case_id << ": " << r.detail;
    if (r.status == CaseResult::Status::kPassed) ++passed[r.impl];
  });
  EXPECT_GT(passed["cuda_quantize"], 0);
  EXPECT_GT(passed["cuda_dequantize"], 0);
  if (device->info().sm != 90) return;
  EXPECT_GT(passed["sm90_fp4_decode_gemm"], 0);
  EXPECT_GT(passed["sm90_fp4_wgmma_gemm"], 0);
}

}  // namespace
}  // namespace nibble
