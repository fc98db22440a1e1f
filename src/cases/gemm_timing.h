// A GEMM's operands in a device's memory, for timing.
#pragma once

#include <vector>

#include "cases/runner.h"
#include "cases/timer.h"
#include "ops/gemm.h"

namespace nibble::cases {

// Random weights of one shape in one layout: as many copies as it takes for a launch to find none
// of its own in a cache, and the activations and outputs of up to max_m rows.
class TimedGemm {
 public:
  struct Options {
    WeightFormat weight = WeightFormat::kNvfp4;
    int64_t n = 0, k = 0;
    int64_t max_m = 1;
  };
  // `type` is of activations and outputs: kF32 or kBF16. Activations are there in FP4 too.
  TimedGemm(const Options& options, DType type, const WeightLayoutImpl& layout,
            const Device& device);

  double weight_bytes() const { return static_cast<double>(weights_[0].bytes); }

  // desc is of this shape and layout, its a_type this type or, with any order of scales, kU8.
  // Refers to this object.
  Launch launch(const GemmImpl& impl, const KernelConfig& config, const GemmDesc& desc) const;

 private:
  const Device& device_;
  DType type_;
  std::vector<PreparedWeight> weights_;
  std::vector<uint8_t> a_host_, d_host_;
  Inputs inputs_;
  std::vector<uint8_t> scales_host_;
  std::vector<float> decode_host_ = {0.01f};
  void* a_ = nullptr;
  void* d_ = nullptr;
  uint8_t* scales_ = nullptr;
  float* decode_ = nullptr;
};

}  // namespace nibble::cases
