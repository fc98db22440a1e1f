// A linear layer with 4-bit weights: quantize, prepare once, multiply for any number of rows.
#include "example.h"

int main() {
  nibble_device* device = nullptr;
  check(nibble_device_create_cpu(0, &device));

  constexpr int64_t kN = 192, kK = 512, kMaxM = 32;
  const Quantized q = quantize_nvfp4(numbers(kN * kK, 0.37f), kN, kK, device);

  nibble_weight_desc desc = {};
  desc.format = NIBBLE_NVFP4;
  desc.n = kN;
  desc.k = kK;
  desc.codes = q.codes.data();
  desc.scales = q.scales.data();
  desc.decode_scales = &q.decode_scale;
  nibble_weight* weight = nullptr;
  check(nibble_weight_create(&desc, device, NIBBLE_ACTIVATION_16BIT, &weight));

  nibble_gemm_options options = {};
  options.max_m = kMaxM;
  options.activation = NIBBLE_ACTIVATION_16BIT;
  nibble_gemm* gemm = nullptr;
  check(nibble_gemm_create(weight, device, &options, &gemm));

  const std::vector<float> a = numbers(kMaxM * kK, 0.11f);
  std::vector<float> all(kMaxM * kN), one(kN);
  check(nibble_gemm_run(gemm, a.data(), 0, all.data(), 0, kMaxM));
  check(nibble_gemm_run(gemm, a.data(), 0, one.data(), 0, 1));
  check(nibble_device_synchronize(device));  // on a GPU the results are there from here on
  std::printf("%lld rows: %s; 1 row: %s; %zu bytes of weights\n", static_cast<long long>(kMaxM),
              nibble_gemm_kernel(gemm, kMaxM), nibble_gemm_kernel(gemm, 1),
              nibble_weight_bytes(weight));

  // Both chose among kernels for their own number of rows, and mean the same.
  float largest = 0, difference = 0;
  for (int64_t j = 0; j < kN; ++j) {
    largest = std::fmax(largest, std::fabs(one[j]));
    difference = std::fmax(difference, std::fabs(one[j] - all[j]));
  }
  nibble_gemm_free(gemm);
  nibble_weight_free(weight);
  nibble_device_free(device);
  if (!(largest > 0) || !(difference <= 1e-5f * largest)) {
    std::fprintf(stderr, "error: the first row differs by %g of %g\n", difference, largest);
    return 1;
  }
}
