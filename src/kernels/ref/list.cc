#include "kernels/ref/list.h"

#include "kernels/ref/gemm.h"
#include "kernels/ref/model_ops.h"
#include "kernels/ref/quantize.h"

namespace nibble::ref {

KernelList kernels() {
  return {.gemm = {&kGemm, 1},
          .quantize = {&kQuantize, 1},
          .dequantize = {&kDequantize, 1},
          .rms_norm = {&kRmsNorm, 1},
          .rope = {&kRope, 1},
          .attention = {&kAttention, 1},
          .silu_mul = {&kSiluMul, 1},
          .embedding = {&kEmbedding, 1},
          .sampling = {&kSampling, 1}};
}

}  // namespace nibble::ref
