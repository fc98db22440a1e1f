#include "cases/gemm_timing.h"

#include <cstring>

#include "cases/inputs.h"
#include "formats/float16.h"

namespace nibble::cases {
namespace {

// More than the caches of the machines that this runs on.
constexpr size_t kRotatedBytes = size_t{300} << 20;

}  // namespace

TimedGemm::TimedGemm(const Options& options, DType type, const WeightLayoutImpl& layout,
                     const Device& device)
    : device_(device), type_(type) {
  std::mt19937 random(1);
  const RandomWeight weight = typical_weight(options.weight, options.n, options.k, random);
  for (size_t bytes = 0; bytes < kRotatedBytes; bytes += weights_.back().bytes) {
    WeightTensor tensor = weight.tensor;
    // Canonical weights are views: a copy of the bytes for every turn.
    const auto keep = [this]<class T>(const T*& bytes_of, const std::vector<T>& source) {
      if (bytes_of == nullptr) return;
      auto& copy = host_memory_.emplace_back(source.size() * sizeof(T));
      std::memcpy(copy.data(), source.data(), copy.size());
      bytes_of = reinterpret_cast<const T*>(copy.data());
    };
    if (layout.layout == WeightLayout::kCanonical) {
      keep(tensor.codes, weight.codes);
      keep(tensor.scales, weight.scales);
      keep(tensor.row_scales, weight.row_scales);
    }
    weights_.push_back(layout.prepare(tensor, device.stream()));
  }
  const std::vector<float> a = random_values(options.max_m * options.k, random);
  std::vector<uint8_t> rows(a.size() * size_of(type_));
  for (size_t i = 0; i < a.size(); ++i) {
    if (type_ == DType::kF32) {
      std::memcpy(&rows[4 * i], &a[i], 4);
    } else {
      const uint16_t bits = float_to_bf16(a[i]);
      std::memcpy(&rows[2 * i], &bits, 2);
    }
  }
  a_ = place(rows);
  d_ = place(std::vector<uint8_t>(static_cast<size_t>(options.max_m * options.n) * size_of(type_)));
}

void* TimedGemm::place(const std::vector<uint8_t>& host) {
  if (device_.info().kind == DeviceKind::kCpu) return host_memory_.emplace_back(host).data();
  const auto& buffer = device_memory_.emplace_back(device_.info().index, host.size());
  cuda::copy(buffer.data(), host.data(), host.size(), device_.stream().cuda);
  device_.synchronize();
  return buffer.data();
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
    args.b = &weights_[static_cast<size_t>(i) % weights_.size()];
    args.d = {d_, type_, d.m, d.n, d.n};
    args.workspace = device_.workspace();
    impl.launch(args, config, device_.stream());
  };
}

}  // namespace nibble::cases
