// The GEMM with its one instruction emulated, for tests on an H200: every other line of the kernels
// is the chip's.
#include "kernels/sm120/emulated.h"

#include "kernels/sm120/entries.h"

namespace nibble::sm120 {
namespace {

constexpr Chip kSm90 = {.gemm = "sm120_fp4_gemm_emulated",
                        .is = [](int sm) { return sm == 90; },
                        .capability = "9.0",
                        .launch = launch_emulated_gemm};

const WeightLayoutImpl kWeightLayouts[] = {kLayoutOf<kSm90>};
const GemmImpl kGemms[] = {kGemmOf<kSm90>};

}  // namespace

KernelList emulated_kernels() { return {.weight_layout = kWeightLayouts, .gemm = kGemms}; }

}  // namespace nibble::sm120
