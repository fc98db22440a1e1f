// GemmImpl's members for CUTLASS's block-scaled collectives, over weights in kFp4Rows.
#pragma once

#include <span>

#include "kernels/vendor/cutlass/kernels.h"
#include "ops/gemm.h"

namespace nibble::cutlass_gemm {

std::vector<const Kernel*> all_kernels();

Support can_implement(const GemmDesc& desc, const DeviceInfo& device);
std::span<const KernelConfig> candidates(const GemmDesc& desc, const DeviceInfo& device);
double estimate_us(const GemmDesc& desc, const KernelConfig& config, const DeviceInfo& device);
size_t workspace_bytes(const GemmDesc& desc, const KernelConfig& config, const DeviceInfo& device);
TileWork work(const GemmDesc& desc, const KernelConfig& config);
void launch(const GemmArgs& args, const KernelConfig& config, Stream stream);

}  // namespace nibble::cutlass_gemm
