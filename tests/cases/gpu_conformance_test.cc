// The case table on a CUDA device: every implementation that runs there, against the reference on
// the host. Skipped where there is no device. NIBBLE_SELFTEST_FILTER=cuda_,sm120: only those with
// one of these in their names.
#include <algorithm>
#include <cstdlib>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "nibble/selftest.h"
#include "tests/cuda_device_test.h"

namespace nibble {
namespace {

using GpuConformance = CudaDeviceTest;

TEST_F(GpuConformance, EveryCudaImplementationAgreesWithItsReference) {
  const char* asked = std::getenv("NIBBLE_SELFTEST_FILTER");
  std::istringstream words(asked == nullptr || *asked == '\0' ? "," : asked);
  std::vector<std::string> filters;
  for (std::string word; std::getline(words, word, ',');) filters.push_back(word);
  std::map<std::string, int> passed;
  for (const std::string& filter : filters) {
    selftest(*device_, filter, [&](const CaseResult& r) {
      EXPECT_NE(r.status, CaseResult::Status::kFailed)
          << r.impl << "/" << r.case_id << ": " << r.detail;
      if (r.status == CaseResult::Status::kPassed) ++passed[r.impl];
    });
  }
  const auto expect_some = [&](const std::string& impl) {
    const auto names = [&](const std::string& filter) { return impl.find(filter) != impl.npos; };
    if (std::ranges::any_of(filters, names)) {
      EXPECT_GT(passed[impl], 0) << impl;
    }
  };
  expect_some("cuda_quantize");
  expect_some("cuda_dequantize");
  if (device_->info().sm == 120) expect_some("sm120_fp4_gemm");
  if (device_->info().sm != 90) return;
  expect_some("sm90_fp4_decode_gemm");
  expect_some("sm90_fp4_wgmma_gemm");
}

}  // namespace
}  // namespace nibble
