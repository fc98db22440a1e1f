#include "cases/gemm_timing.h"

#include <cstring>

#include "cases/inputs.h"
#include "formats/float16.h"
#include "nibble/scales.h"

namespace nibble::cases {
namespace {

// More than the caches of the machines that this runs on.
constexpr size_t kRotatedBytes = size_t{300} << 20;

}  // namespace

TimedGemm::TimedGemm(const Options& options, DType type, const WeightLayoutImpl& layout,
                     const Device& device)
    : device_(device), type_(type), inputs_(device) {
  std::mt19937 random(1);
  const RandomWeight weight = typical_weight(options.weight, options.n, options.k, random);
  for (size_t bytes = 0; bytes < kRotatedBytes; bytes += weights_.back().bytes) {
    weights_.push_back(layout.prepare(owned_copy(weight), device.stream()));
  }
  const std::vector<float> a = random_values(options.max_m * options.k, random);
  a_host_.resize(a.size() * size_of(type_));
  for (size_t i = 0; i < a.size(); ++i) {
    if (type_ == DType::kF32) {
      std::memcpy(&a_host_[4 * i], &a[i], 4);
    } else {
      const uint16_t bits = float_to_bf16(a[i]);
      std::memcpy(&a_host_[2 * i], &bits, 2);
    }
  }
  d_host_.resize(static_cast<size_t>(options.max_m * options.n) * size_of(type_));
  if (is_fp4(options.weight)) {
    // Ones, so that every order of them is the same: room for the one with the most padding.
    const uint8_t one = options.weight == WeightFormat::kNvfp4 ? 0x38 : 0x7F;
    scales_host_.assign(
        scale_bytes(options.weight, ScaleLayout::kSwizzled128x4, options.max_m, options.k), one);
    scales_ = inputs_(scales_host_);
    decode_ = inputs_(decode_host_);
  }
  a_ = inputs_(a_host_);
  d_ = inputs_(d_host_);
  device.synchronize();
}

Launch TimedGemm::launch(const GemmImpl& impl, const KernelConfig& config,
                         const GemmDesc& d) const {
  if (impl.workspace_bytes) {
    device_.reserve_workspace(impl.workspace_bytes(d, config, device_.info()));
  }
  return [this, &impl, config, d](int64_t i) {
    GemmArgs args;
    args.desc = d;
    args.a = {a_, type_, d.m, d.k, d.k};
    if (d.a_type == DType::kU8) {
      args.a = {a_, d.a_type, d.m, d.k / 2, d.k / 2};  // the same bits: codes as good as any
      args.a_scales = scales_;
      args.a_decode_scale = decode_;
    }
    args.b = &weights_[static_cast<size_t>(i) % weights_.size()];
    args.d = {d_, type_, d.m, d.n, d.n};
    args.workspace = device_.workspace();
    impl.launch(args, config, device_.stream());
  };
}

}  // namespace nibble::cases
