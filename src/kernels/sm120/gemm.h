// What the two builds of the sm_120 GEMM make their table entries of (list.cc for the chip,
// emulated.cc for tests on another).
#pragma once

#include <span>

#include "kernels/sm120/gemm_params.h"
#include "ops/gemm.h"

namespace nibble::sm120 {

// WeightLayout::kSm120, packed on the host and kept in device memory.
Support can_hold(const WeightTensor& tensor);
PreparedWeight prepare(const WeightTensor& tensor, Stream stream);

// GemmImpl's members, the chip apart.
Support takes(const GemmDesc& desc);
std::span<const KernelConfig> candidates(const GemmDesc& desc, const DeviceInfo& device);
double estimate_us(const GemmDesc& desc, const KernelConfig& config, const DeviceInfo& device);
size_t workspace_bytes(const GemmDesc& desc, const KernelConfig& config, const DeviceInfo& device);
TileWork work(const GemmDesc& desc, const KernelConfig& config);
using LaunchGemm = void(const GemmParams&, const GemmConfig&, WeightFormat, Stream);
void launch_as(const GemmArgs& args, const KernelConfig& config, Stream stream, LaunchGemm* launch);

}  // namespace nibble::sm120
