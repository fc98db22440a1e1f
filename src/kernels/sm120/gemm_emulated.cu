#include "kernels/sm120/gemm_launch.cuh"

namespace nibble::sm120 {

void launch_emulated_gemm(const GemmParams& params, const GemmConfig& config, WeightFormat format,
                          Stream stream) {
  launch_gemm_of<EmulatedMma>(params, config, format, stream);
}

}  // namespace nibble::sm120
