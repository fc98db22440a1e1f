// Turns the stored tensors of one module into the canonical weight.
#pragma once

#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "checkpoint/config.h"
#include "checkpoint/shards.h"
#include "nibble/weight.h"

namespace nibble {

struct WeightSource {
  const TensorFiles& files;
  const QuantConfig& config;
};

// How a module is stored, from its headers and the config.
struct StoredWeight {
  const StoredTensor* weight;  // [n, k] or [experts, n, k], k / 2 bytes a row where packed
  WeightFormat format;
  const ModuleScheme* scheme;  // null: plain
  bool compressed_names;       // weight_packed and divisors; else weight and multipliers

  int64_t experts() const { return weight->shape.size() == 3 ? weight->shape[0] : 0; }
  int64_t n() const { return weight->shape[weight->shape.size() - 2]; }
  int64_t k() const { return weight->shape.back() * (is_fp4(format) ? 2 : 1); }
};

// Throws kCheckpoint where the tensors are missing, are no matrix or contradict the config.
StoredWeight find_weight(const WeightSource& source, std::string_view module);

// `expert` picks one matrix of a 3-D weight. `owner` keeps the mapping alive.
WeightTensor read_linear(const WeightSource& source, std::string_view module,
                         std::optional<int64_t> expert, std::shared_ptr<const void> owner);

// All elements of an F32, BF16 or F16 tensor.
std::vector<float> widen(const StoredTensor& tensor);

}  // namespace nibble
