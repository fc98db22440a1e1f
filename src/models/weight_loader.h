// Takes a model's weights from its checkpoint, checks their shapes and prepares them for a device.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "models/config.h"
#include "models/linear.h"
#include "ops/gemm.h"

namespace nibble {

class WeightLoader {
 public:
  WeightLoader(const Checkpoint& checkpoint, const Device& device, const ModelConfig& config,
               ActivationMode activation, int64_t max_rows)
      : checkpoint_(checkpoint),
        device_(device),
        config_(config),
        activation_(activation),
        max_rows_(max_rows) {}

  const ModelConfig& config() const { return config_; }

  struct Part {
    std::string module;  // "model.layers.0.self_attn.q_proj"
    int64_t n;
  };
  struct LinearOptions {
    int64_t k = 0;
    bool bias = false;     // that every part has one; where false, none may
    bool add = false;      // d += instead of d =
    int64_t max_rows = 0;  // 0: those of the whole pass
  };
  // The parts stacked along n: one GEMM where their formats allow it.
  Linear linear(const std::vector<Part>& parts, const LinearOptions& options) const;

  // A norm's weight.
  std::vector<float> vector(const std::string& tensor, int64_t size) const;

  // An embedding's table, read in place: of a large vocabulary only the rows in use are touched.
  std::shared_ptr<const PreparedWeight> table(const Part& part, int64_t k) const;

 private:
  WeightTensor weight(const Part& part, int64_t k) const;
  LinearWeight prepare_and_release(const WeightTensor& weight) const;
  std::vector<float> bias(const std::vector<Part>& parts, bool expected) const;

  const Checkpoint& checkpoint_;
  const Device& device_;
  const ModelConfig& config_;
  ActivationMode activation_;
  int64_t max_rows_;
};

}  // namespace nibble
