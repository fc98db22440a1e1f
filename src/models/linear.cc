#include "models/linear.h"

#include <utility>

namespace nibble {

Linear::Linear(const std::vector<LinearWeight>& weights, std::vector<float> bias,
               const Device& device, const GemmOptions& options)
    : bias_(std::move(bias)) {
  for (const LinearWeight& weight : weights) {
    GemmOptions own = options;
    own.activation = activation_for(weight.format(), options.activation);
    plans_.emplace_back(weight, device, own);
  }
}

void Linear::run(const MatrixView& a, const MatrixView& d) const {
  float* out = static_cast<float*>(d.data);
  for (const GemmPlan& plan : plans_) {
    plan.run(a.data, a.stride, out, d.stride, a.rows);
    out += plan.weight().n();
  }
  if (bias_.empty()) return;
  for (int64_t row = 0; row < d.rows; ++row) {
    float* y = d.row<float>(row);
    for (size_t i = 0; i < bias_.size(); ++i) y[i] += bias_[i];
  }
}

size_t Linear::bytes() const {
  size_t sum = 0;
  for (const GemmPlan& plan : plans_) sum += plan.weight().bytes();
  return sum;
}

}  // namespace nibble
