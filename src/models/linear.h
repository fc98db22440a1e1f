// Linear layers as a forward pass uses them.
#pragma once

#include <cstddef>
#include <vector>

#include "nibble/gemm.h"
#include "ops/impl.h"

namespace nibble {

// Only 4-bit weights come with quantized activations: what an export left unquantized keeps its
// full precision.
constexpr ActivationMode activation_for(WeightFormat format, ActivationMode asked) {
  return is_fp4(format) ? asked : ActivationMode::k16Bit;
}

// d = a * W^T + bias, or d += where made to accumulate. W may be several weights stacked along n,
// each with a GEMM of its own: what a file stores in different formats can't share one.
class Linear {
 public:
  Linear() = default;
  // bias: empty, or one value per row of all weights together.
  Linear(const std::vector<LinearWeight>& weights, std::vector<float> bias, const Device& device,
         const GemmOptions& options);

  // a: [m, k], d: [m, n], m = a.rows
  void run(const MatrixView& a, const MatrixView& d) const;

  size_t bytes() const;  // of weights that run() reads

 private:
  std::vector<GemmPlan> plans_;
  std::vector<float> bias_;
};

}  // namespace nibble
