// Quantizes a matrix to NVFP4 and looks at what became of its first block of 16.
#include "example.h"

int main() {
  nibble_device* device = nullptr;
  check(nibble_device_create_cpu(0, &device));

  constexpr int64_t kRows = 64, kCols = 256;
  const std::vector<float> x = numbers(kRows * kCols, 0.37f);
  const Quantized q = quantize_nvfp4(x, kRows, kCols, device);
  nibble_device_free(device);

  // A code is a sign bit and one of eight magnitudes; two codes a byte, even column low.
  constexpr float kMagnitudes[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  const int scale = q.scales[0];  // e4m3: 4 bits of exponent, 3 of mantissa; never negative
  const int exponent = scale >> 3, mantissa = scale & 7;
  const float block = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                    : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  float worst = 0;
  for (int j = 0; j < 16; ++j) {
    const int code = q.codes[j / 2] >> (j % 2 * 4) & 15;
    const float magnitude = kMagnitudes[code & 7] * block * q.decode_scale;
    const float back = code & 8 ? -magnitude : magnitude;
    worst = std::fmax(worst, std::fabs(back - x[j]));
    std::printf("%8.4f -> %8.4f\n", x[j], back);
  }
  // Half a step between the magnitudes 4 and 6, of a block whose largest value is at most 1.
  if (!(worst <= 1.0f / 6 + 0.01f)) {
    std::fprintf(stderr, "error: a value moved by %g\n", worst);
    return 1;
  }
}
