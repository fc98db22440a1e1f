#include "kernels/sm120/list.h"

#include "kernels/sm120/entries.h"

namespace nibble::sm120 {
namespace {

constexpr Chip kSm120 = {.gemm = "sm120_fp4_gemm",
                         .is = [](int sm) { return sm == 120 || sm == 121; },
                         .capability = "12.0 or 12.1",
                         .launch = launch_hardware_gemm};

const WeightLayoutImpl kWeightLayouts[] = {kLayoutOf<kSm120>};
const GemmImpl kGemms[] = {kGemmOf<kSm120>};

}  // namespace

KernelList kernels() { return {.weight_layout = kWeightLayouts, .gemm = kGemms}; }

}  // namespace nibble::sm120
