// Proves on the machine at hand that every implementation computes what the reference does.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/device.h"

namespace nibble {

// One implementation on one case.
struct CaseResult {
  enum class Status { kPassed, kFailed, kRefused };
  std::string op;       // "gemm"
  std::string impl;     // "cpu_portable_gemm"
  std::string case_id;  // "m=17 n=96 k=272 weight=nvfp4 activation=16bit segments=3 c=0"
  Status status = Status::kPassed;
  // kFailed: where and how far off; kRefused: the reason.
  std::string detail;
};

// Runs the built-in cases (tests/cases/*.txt) of every op on every registered implementation whose
// name contains `filter`, twice each, against the op's reference; calls on_result for each.
// Quantizers must agree bit for bit, everything else within a bound derived from the case. Outputs
// are poisoned first and guarded by sentinels.
void selftest(const Device& device, std::string_view filter,
              const std::function<void(const CaseResult&)>& on_result);

}  // namespace nibble
