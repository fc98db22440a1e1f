#include "kernels/sm120/gemm_launch.cuh"

namespace nibble::sm120 {

void launch_hardware_gemm(const GemmParams& params, const GemmConfig& config, WeightFormat format,
                          Stream stream) {
  constexpr const char* kName = "sm120_fp4_gemm";
  if (format == WeightFormat::kMxfp4) {
    return launch_gemm<HardwareMma<WeightFormat::kMxfp4>>(kName, params, config, stream);
  }
  launch_gemm<HardwareMma<WeightFormat::kNvfp4>>(kName, params, config, stream);
}

}  // namespace nibble::sm120
