#include "kernels/vendor/cublaslt/list.h"

#include "kernels/vendor/cublaslt/gemm.h"

namespace nibble::cublaslt {
namespace {

const GemmImpl kGemms[] = {kGemm};

}  // namespace

KernelList kernels() { return {.gemm = kGemms}; }

}  // namespace nibble::cublaslt
