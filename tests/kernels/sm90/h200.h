// What the Hopper GEMMs offer the choice, on an H200 that need not be there.
#pragma once

#include <string>
#include <vector>

#include "dispatch/chips.h"
#include "kernels/sm90/gemm.h"

namespace nibble::sm90 {

// As the card describes itself; so does tools/fit_sm90.py.
inline DeviceInfo h200() {
  return device_info({.name = "H200", .sm = 90, .sms = 132, .bandwidth = 4.814});
}

inline GemmDesc gemm(int64_t m, int64_t n, int64_t k) {
  return {.m = m,
          .n = n,
          .k = k,
          .weight = WeightFormat::kNvfp4,
          .layout = WeightLayout::kSm90,
          .activation = ActivationMode::k16Bit,
          .a_type = DType::kBF16,
          .d_type = DType::kBF16};
}

struct Estimate {
  std::string name;  // as bench_sm90_gemm has it
  double us;
};
inline std::vector<Estimate> estimates(const GemmDesc& d) {
  std::vector<Estimate> all;
  for (const GemmImpl* impl : {&kDecodeGemm, &kWgmmaGemm}) {
    if (!impl->can_implement(d, h200())) continue;
    for (const KernelConfig& c : impl->candidates(d, h200())) {
      all.push_back(
          {std::string(impl->name) + " " + to_string(c), impl->estimate_us(d, c, h200())});
    }
  }
  return all;
}

}  // namespace nibble::sm90
