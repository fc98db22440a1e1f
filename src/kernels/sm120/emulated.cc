// The GEMM with its one instruction emulated, for tests on an H200: every other line of the kernels
// is the chip's.
#include "kernels/sm120/emulated.h"

#include "kernels/sm120/gemm.h"

namespace nibble::sm120 {
namespace {

Support runs_on(const DeviceInfo& device) {
  if (device.kind != DeviceKind::kCuda) return Support::no("runs on a CUDA device only");
  if (device.sm == 90) return Support::yes();
  return Support::no("needs compute capability 9.0, found sm_{}", device.sm);
}

const WeightLayoutImpl kWeightLayouts[] = {
    {.layout = WeightLayout::kSm120,
     .can_prepare =
         [](const WeightTensor& tensor, const DeviceInfo& device) {
           const Support s = runs_on(device);
           return s ? can_hold(tensor) : s;
         },
     .prepare = prepare}};

const GemmImpl kGemms[] = {
    {.name = "sm120_fp4_gemm_emulated",
     .can_implement =
         [](const GemmDesc& d, const DeviceInfo& device) {
           const Support s = runs_on(device);
           return s ? takes(d) : s;
         },
     .launch = [](const GemmArgs& args, const KernelConfig& config,
                  Stream stream) { launch_as(args, config, stream, launch_emulated_gemm); },
     .candidates = candidates,
     .estimate_us = estimate_us,
     .workspace_bytes = workspace_bytes}};

}  // namespace

KernelList emulated_kernels() { return {.weight_layout = kWeightLayouts, .gemm = kGemms}; }

}  // namespace nibble::sm120
