#include "kernels/sm80/list.h"

#include "kernels/sm80/gemm.h"

namespace nibble::sm80 {
namespace {

const GemmImpl kGemms[] = {kMmaGemm};

}  // namespace

KernelList kernels() { return {.gemm = kGemms}; }

}  // namespace nibble::sm80
