// Reads "n k m" lines; prints "n k m|name configuration|us" for every candidate of the Hopper
// GEMMs, on an H200 that need not be there.
#include <iostream>

#include "kernels/sm90/gemm.h"

int main() {
  using namespace nibble;
  DeviceInfo h200;
  h200.kind = DeviceKind::kCuda;
  h200.sm = 90;
  h200.num_sms = 132;
  h200.bandwidth_gbps = 4814;  // as the card says, and as tools/fit_sm90.py has it
  std::cout.precision(9);
  int64_t n = 0, k = 0, m = 0;
  while (std::cin >> n >> k >> m) {
    const GemmDesc d = {.m = m,
                        .n = n,
                        .k = k,
                        .weight = WeightFormat::kNvfp4,
                        .layout = WeightLayout::kSm90,
                        .activation = ActivationMode::k16Bit,
                        .a_type = DType::kBF16,
                        .d_type = DType::kBF16};
    for (const GemmImpl* impl : {&sm90::kDecodeGemm, &sm90::kWgmmaGemm}) {
      if (!impl->can_implement(d, h200)) continue;
      for (const KernelConfig& c : impl->candidates(d, h200)) {
        std::cout << n << ' ' << k << ' ' << m << '|' << impl->name << ' ' << to_string(c) << '|'
                  << impl->estimate_us(d, c, h200) << '\n';
      }
    }
  }
}
