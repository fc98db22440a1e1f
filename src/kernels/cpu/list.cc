#include "kernels/cpu/list.h"

#include "kernels/cpu/attention.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/quantize.h"
#include "kernels/cpu/sampling.h"

namespace nibble::cpu {
namespace {

// Fastest first.
const WeightLayoutImpl kWeightLayouts[] = {kCanonicalLayout};
const GemmImpl kGemms[] = {kPortableGemm};
const QuantizeImpl kQuantizes[] = {kAvx2Quantize, kPortableQuantize};
const DequantizeImpl kDequantizes[] = {kAvx2Dequantize, kPortableDequantize};
const RmsNormImpl kRmsNorms[] = {kPortableRmsNorm};
const RopeImpl kRopes[] = {kPortableRope};
const AttentionImpl kAttentions[] = {kPortableAttention};
const SiluMulImpl kSiluMuls[] = {kPortableSiluMul};
const EmbeddingImpl kEmbeddings[] = {kPortableEmbedding};
const SamplingImpl kSamplings[] = {kPortableSampling};

}  // namespace

KernelList kernels() {
  return {.weight_layout = kWeightLayouts,
          .gemm = kGemms,
          .quantize = kQuantizes,
          .dequantize = kDequantizes,
          .rms_norm = kRmsNorms,
          .rope = kRopes,
          .attention = kAttentions,
          .silu_mul = kSiluMuls,
          .embedding = kEmbeddings,
          .sampling = kSamplings};
}

}  // namespace nibble::cpu
