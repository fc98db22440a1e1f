#include "kernels/sm90/list.h"

#include "kernels/sm90/gemm.h"

namespace nibble::sm90 {
namespace {

const WeightLayoutImpl kWeightLayouts[] = {kLayout};
const GemmImpl kGemms[] = {kDecodeGemm, kWgmmaGemm};

}  // namespace

KernelList kernels() { return {.weight_layout = kWeightLayouts, .gemm = kGemms}; }

}  // namespace nibble::sm90
