// The table entries for one chip: the real one (list.cc), or the one that tests emulate it on
// (emulated.cc).
#pragma once

#include "kernels/sm120/gemm.h"

namespace nibble::sm120 {

struct Chip {
  std::string_view gemm;  // the GEMM's name
  bool (*is)(int sm);
  std::string_view capability;  // as a refusal names it
  LaunchGemm* launch;
};

template <const Chip& kChip>
Support runs_on(const DeviceInfo& device) {
  if (device.kind != DeviceKind::kCuda) return Support::no("runs on a CUDA device only");
  if (kChip.is(device.sm)) return Support::yes();
  return Support::no("needs compute capability {}, found sm_{}", kChip.capability, device.sm);
}

template <const Chip& kChip>
inline constexpr WeightLayoutImpl kLayoutOf = {
    .layout = WeightLayout::kSm120,
    .can_prepare =
        [](const WeightTensor& tensor, const DeviceInfo& device) {
          const Support s = runs_on<kChip>(device);
          return s ? can_hold(tensor) : s;
        },
    .prepare = prepare};

template <const Chip& kChip>
inline constexpr GemmImpl kGemmOf = {
    .name = kChip.gemm,
    .can_implement =
        [](const GemmDesc& d, const DeviceInfo& device) {
          const Support s = runs_on<kChip>(device);
          return s ? takes(d) : s;
        },
    .launch = [](const GemmArgs& args, const KernelConfig& config,
                 Stream stream) { launch_as(args, config, stream, kChip.launch); },
    .candidates = candidates,
    .estimate_us = estimate_us,
    .workspace_bytes = workspace_bytes,
    .work = work,
    .load = [](const GemmDesc& d, const KernelConfig& config,
               Stream stream) { launch_as(without_memory(d), config, stream, kChip.launch); }};

}  // namespace nibble::sm120
