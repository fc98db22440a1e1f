// What both examples need: an error ends the program with its message.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "nibble/nibble.h"

inline void check(nibble_status status) {
  if (status == NIBBLE_OK) return;
  std::fprintf(stderr, "error: %s\n", nibble_last_error());
  std::exit(1);
}

// n numbers between -1 and 1, the same on every run.
inline std::vector<float> numbers(size_t n, float step) {
  std::vector<float> x(n);
  for (size_t i = 0; i < n; ++i) x[i] = std::sin(step * static_cast<float>(i));
  return x;
}

// A [m, k] matrix in NVFP4, scales linear.
struct Quantized {
  std::vector<uint8_t> codes, scales;
  float decode_scale = 0;
};

inline Quantized quantize_nvfp4(const std::vector<float>& x, int64_t m, int64_t k,
                                const nibble_device* device) {
  Quantized q;
  q.codes.resize(m * k / 2);
  q.scales.resize(nibble_scale_bytes(NIBBLE_NVFP4, NIBBLE_LINEAR, m, k));
  nibble_quantize_args args = {};
  args.format = NIBBLE_NVFP4;
  args.layout = NIBBLE_LINEAR;
  args.src_type = NIBBLE_F32;
  args.src = x.data();
  args.m = m;
  args.k = k;
  args.decode_scale = &q.decode_scale;
  args.compute_decode_scale = 1;
  args.codes = q.codes.data();
  args.scales = q.scales.data();
  check(nibble_quantize(&args, device));
  return q;
}
