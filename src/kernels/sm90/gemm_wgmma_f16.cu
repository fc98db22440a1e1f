#include "kernels/sm90/gemm_wgmma_kernels.cuh"

namespace nibble::sm90 {

constinit const WgmmaFunctions kWgmmaF16 = wgmma_functions<Wide::kF16>();

}  // namespace nibble::sm90
