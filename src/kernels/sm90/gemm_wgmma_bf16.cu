#include "kernels/sm90/gemm_wgmma_kernels.cuh"

namespace nibble::sm90 {

constinit const WgmmaFunctions kWgmmaBF16 = wgmma_functions<Wide::kBF16>();

}  // namespace nibble::sm90
