#include "nibble/selftest.h"

#include "cases/runner.h"

namespace nibble {

void selftest(const Device& device, std::string_view filter,
              const std::function<void(const CaseResult&)>& on_result) {
  cases::run_gemm_cases(device, filter, on_result);
  cases::run_quantize_cases(device, filter, on_result);
  cases::run_model_op_cases(device, filter, on_result);
}

}  // namespace nibble
