// Random operands for a row of tests/cases/gemm.txt.
#pragma once

#include <cmath>
#include <fstream>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "formats/float16.h"
#include "ops/gemm.h"

namespace nibble {

struct GemmCase {
  int64_t m, n, k;
  WeightFormat format;
  ActivationMode activation;
  int segments;
  bool c;
};

template <class Enum, size_t kCount>
Enum parse_name(const std::string& text, const Enum (&values)[kCount]) {
  for (const Enum value : values) {
    if (to_string(value) == text) return value;
  }
  throw std::runtime_error("unknown word in the case table: " + text);
}

inline std::vector<GemmCase> read_gemm_cases(const std::string& path) {
  constexpr WeightFormat kFormats[] = {WeightFormat::kF32,   WeightFormat::kF16,
                                       WeightFormat::kBF16,  WeightFormat::kNvfp4,
                                       WeightFormat::kMxfp4, WeightFormat::kF8};
  std::ifstream file(path);
  std::vector<GemmCase> cases;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    GemmCase c{};
    std::string format, activation;
    if (!(words >> c.m >> c.n >> c.k >> format >> activation >> c.segments >> c.c)) continue;
    c.format = parse_name(format, kFormats);
    c.activation = parse_name(activation, kActivationModes);
    cases.push_back(c);
  }
  return cases;
}

// Weights with every code and scale a format has but NaN, and their memory.
struct RandomWeight {
  std::vector<uint8_t> codes, scales;
  std::vector<float> row_scales;
  WeightTensor tensor;

  RandomWeight(WeightFormat format, int64_t n, int64_t k, int segments, uint32_t seed)
      : codes(static_cast<size_t>(n * row_bytes(format, k)) + 1) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    const auto uniform = [&](int low, int high) {
      return std::uniform_int_distribution<int>(low, high)(random);
    };
    uint8_t* const first = codes.data() + 1;  // checkpoints align nothing
    for (int64_t i = 0; i < n * k; ++i) {
      const float x = normal(random);
      if (format == WeightFormat::kF32) std::memcpy(first + 4 * i, &x, 4);
      if (format == WeightFormat::kF16 || format == WeightFormat::kBF16) {
        const uint16_t half = format == WeightFormat::kF16 ? float_to_fp16(x) : float_to_bf16(x);
        std::memcpy(first + 2 * i, &half, 2);
      }
      if (format == WeightFormat::kF8) {
        first[i] = static_cast<uint8_t>(uniform(0, 0x7E) | uniform(0, 1) << 7);
      }
    }
    if (is_fp4(format)) {
      for (int64_t i = 0; i < n * k / 2; ++i) first[i] = static_cast<uint8_t>(uniform(0, 255));
      scales.resize(static_cast<size_t>(n * (k / block_size(format))));
      for (size_t i = 0; i < scales.size(); ++i) {
        scales[i] =
            static_cast<uint8_t>(format == WeightFormat::kNvfp4
                                     ? nvfp4_scale(static_cast<int64_t>(i) / (k / 16), uniform)
                                     : uniform(118, 132));
      }
      tensor.scales = scales.data();
    }
    if (format == WeightFormat::kNvfp4) {
      for (int s = 0; s < segments; ++s) {
        tensor.segments.push_back({n * s / segments, 0.01f * static_cast<float>(s + 1)});
      }
    }
    if (format == WeightFormat::kF8) {
      for (int64_t i = 0; i < n; ++i) row_scales.push_back(std::fabs(normal(random)) * 0.01f);
      tensor.row_scales = row_scales.data();
    }
    tensor.name = "random";
    tensor.format = format;
    tensor.n = n;
    tensor.k = k;
    tensor.codes = first;
  }

  // Tile by tile of 16 rows: any scale; as many binades of the largest, and zeros, as 15 bits hold;
  // as many of the smallest.
  template <class Uniform>
  static int nvfp4_scale(int64_t row, Uniform& uniform) {
    if (row / 16 % 3 == 1) return uniform(0, 9) == 0 ? 0 : uniform(0x20, 0x7E);
    return uniform(0, row / 16 % 3 == 2 ? 0x67 : 0x7E);
  }

  // Their magnitudes.
  RandomWeight magnitudes() const {
    RandomWeight w = *this;
    const int64_t size = static_cast<int64_t>(codes.size()) - 1;
    uint8_t* const first = w.codes.data() + 1;
    const int width = tensor.format == WeightFormat::kF32  ? 4
                      : tensor.format == WeightFormat::kF8 ? 1
                                                           : 2;
    for (int64_t i = 0; i < size; ++i) {
      if (is_fp4(tensor.format)) {
        first[i] &= 0x77;
      } else if (i % width == width - 1) {
        first[i] &= 0x7F;
      }
    }
    w.relink();
    return w;
  }

  RandomWeight(const RandomWeight& other)
      : codes(other.codes),
        scales(other.scales),
        row_scales(other.row_scales),
        tensor(other.tensor) {
    relink();
  }

 private:
  void relink() {
    tensor.codes = codes.data() + 1;
    if (!scales.empty()) tensor.scales = scales.data();
    if (!row_scales.empty()) tensor.row_scales = row_scales.data();
  }
};

// Activations with outliers, a block of zeros and a tiny one.
inline std::vector<float> random_activations(int64_t m, int64_t k, int64_t stride, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> a(static_cast<size_t>(m * stride), NAN);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < k; ++j) {
      float x = normal(random);
      if (random() % 50 == 0) x *= 40;
      if ((i + j / 16) % 7 == 3) x = 0;
      if ((i + j / 16) % 11 == 5) x *= 0x1p-60f;
      a[i * stride + j] = x;
    }
  }
  return a;
}

}  // namespace nibble
