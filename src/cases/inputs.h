// Seeded inputs for the cases.
#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <vector>

#include "ops/gemm.h"

namespace nibble::cases {

// Normal values, a few of them (1 in 64) ten times as large: what activations look like.
inline std::vector<float> random_values(int64_t count, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& v : values) v = normal(random) * (random() % 64 == 0 ? 10.0f : 1.0f);
  return values;
}

// A canonical weight of any format with its own memory. NVFP4 gets `segments` global scales.
struct RandomWeight {
  RandomWeight(WeightFormat format, int64_t n, int64_t k, int segments, std::mt19937& random);
  RandomWeight(const RandomWeight& other);
  RandomWeight(RandomWeight&&) = default;

  std::vector<uint8_t> codes, scales;
  std::vector<float> row_scales;
  WeightTensor tensor;  // of these

 private:
  void point_at_own_memory();
};

// The tensor of a copy, which it keeps alive: a device may read canonical weights in place.
WeightTensor owned_copy(const RandomWeight& weight);

// Without subnormal e4m3, which checkpoints hardly have (none of SmolLM2-135M's scales and codes)
// and which take processors up to 100 times as long: for timing.
RandomWeight typical_weight(WeightFormat format, int64_t n, int64_t k, std::mt19937& random);

// A weight in every layout that a device can prepare it in; `more` layouts first.
using PreparedWeights = std::map<WeightLayout, PreparedWeight>;
PreparedWeights prepare_all(const WeightTensor& tensor, const Device& host, const Device& device,
                            std::span<const WeightLayoutImpl> more = {});

}  // namespace nibble::cases
