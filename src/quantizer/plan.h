// What happens to each tensor of a checkpoint.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/writer.h"
#include "nibble/quantize.h"

namespace nibble {

struct QuantizePlan {
  struct Weight {
    std::string module;
    std::string tensor;
    WeightFormat format;  // to become
    DType dtype;          // stored
    int64_t n;
    int64_t k;
    bool copied;  // byte for byte as well: a tied embedding stays
  };
  // Weights that share one global scale.
  struct Group {
    std::vector<Weight> weights;
  };
  std::vector<Group> groups;
  std::vector<std::string> copied;       // other tensors
  std::vector<std::string> unquantized;  // modules of linear layers among them
  std::optional<WeightFormat> lm_head;   // nothing: as it is
  std::vector<OutputTensor> outputs;     // in the source's order
  int64_t bytes_in = 0;
};

// Throws as quantize_checkpoint says.
QuantizePlan plan_quantization(const Checkpoint& source, const QuantizeOptions& options);

}  // namespace nibble
