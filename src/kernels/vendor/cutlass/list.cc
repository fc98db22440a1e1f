#include "kernels/vendor/cutlass/list.h"

#include "kernels/vendor/cutlass/gemm.h"

namespace nibble::cutlass_gemm {
namespace {

const GemmImpl kGemms[] = {{.name = "cutlass_fp4_gemm",
                            .can_implement = can_implement,
                            .launch = launch,
                            .candidates = candidates,
                            .estimate_us = estimate_us,
                            .workspace_bytes = workspace_bytes,
                            .work = work}};

}  // namespace

KernelList kernels() { return {.gemm = kGemms}; }

}  // namespace nibble::cutlass_gemm
