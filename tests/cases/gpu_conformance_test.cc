// The case table on a CUDA device: every implementation that runs there, against the reference on
// the host. Skipped where there is no device. NIBBLE_SELFTEST_FILTER=cuda_,sm120: only those with
// one of these in their names.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <optional>
#include <sstream>
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
  const char* asked = std::getenv("NIBBLE_SELFTEST_FILTER");
  std::istringstream filters(asked == nullptr || *asked == '\0' ? "," : asked);
  for (std::string filter; std::getline(filters, filter, ',');) {
    selftest(*device, filter, [&](const CaseResult& r) {
      EXPECT_NE(r.status, CaseResult::Status::kFailed)
          << r.impl << "/" << r.case_id << ": " << r.detail;
      if (r.status == CaseResult::Status::kPassed) ++passed[r.impl];
    });
  }
  EXPECT_GT(passed["cuda_quantize"], 0);
  EXPECT_GT(passed["cuda_dequantize"], 0);
  if (device->info().sm == 120) {
    EXPECT_GT(passed["sm120_fp4_gemm"], 0);
  }
  if (device->info().sm != 90) return;
  EXPECT_GT(passed["sm90_fp4_decode_gemm"], 0);
  EXPECT_GT(passed["sm90_fp4_wgmma_gemm"], 0);
}

}  // namespace
}  // namespace nibble
