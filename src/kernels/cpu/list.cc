#include "kernels/cpu/list.h"

#include "kernels/cpu/attention.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/quantize.h"
#include "kernels/cpu/row_gemm.h"
#include "kernels/cpu/sampling.h"
#include "kernels/cpu/tile_gemm.h"
#include "kernels/cpu/tiles.h"
#include "kernels/cpu/vector_ops.h"

namespace nibble::cpu {
namespace {

// Fastest first.
#if defined(__x86_64__)
const WeightLayoutImpl kWeightLayouts[] = {kTileLayout, kCanonicalLayout};
const GemmImpl kGemms[] = {kAmxBf16Gemm,  kAvx512Bf16Gemm, kAvx512Int8Gemm, kAvxVnniInt8Gemm,
                           kAvx2Int8Gemm, kAvx512TileGemm, kAvx2TileGemm,   kAvx512RowGemm,
                           kAvx2RowGemm,  kPortableGemm};
const QuantizeImpl kQuantizes[] = {kAvx2Quantize, kPortableQuantize};
const DequantizeImpl kDequantizes[] = {kAvx2Dequantize, kPortableDequantize};
const RmsNormImpl kRmsNorms[] = {kAvx512RmsNorm, kAvx2RmsNorm, kPortableRmsNorm};
const RopeImpl kRopes[] = {kAvx512Rope, kAvx2Rope, kPortableRope};
const AttentionImpl kAttentions[] = {kAvx512Attention, kAvx2Attention, kPortableAttention};
const SiluMulImpl kSiluMuls[] = {kAvx512SiluMul, kAvx2SiluMul, kPortableSiluMul};
const EmbeddingImpl kEmbeddings[] = {kAvx512Embedding, kAvx2Embedding, kPortableEmbedding};
const SamplingImpl kSamplings[] = {kAvx512Sampling, kAvx2Sampling, kPortableSampling};
#else
const WeightLayoutImpl kWeightLayouts[] = {kCanonicalLayout};
const GemmImpl kGemms[] = {kPortableGemm};
const QuantizeImpl kQuantizes[] = {kPortableQuantize};
const DequantizeImpl kDequantizes[] = {kPortableDequantize};
const RmsNormImpl kRmsNorms[] = {kPortableRmsNorm};
const RopeImpl kRopes[] = {kPortableRope};
const AttentionImpl kAttentions[] = {kPortableAttention};
const SiluMulImpl kSiluMuls[] = {kPortableSiluMul};
const EmbeddingImpl kEmbeddings[] = {kPortableEmbedding};
const SamplingImpl kSamplings[] = {kPortableSampling};
#endif

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
