// 4-bit weights by 4-bit activations through cuBLASLt, for every chip with FP4 tensor cores.
#pragma once

#include "kernels/cuda/fp4_operand.h"
#include "ops/gemm.h"

struct cublasLtContext;

namespace nibble::cublaslt {

class Plans;

extern const GemmImpl kGemm;  // "cublaslt_fp4_gemm"

// What can be said without the library and the chip.
Support takes(const GemmDesc& desc);

// What a device's matmuls share.
struct Multiplier {
  cublasLtContext* handle = nullptr;
  Plans* plans = nullptr;
  const float* zero_and_one = nullptr;  // values of beta, in the device's memory
};
// Puts one matmul a segment on the stream. Throws kUnsupported where the heuristic knows none.
void multiply(const Multiplier& on, const GemmArgs& args, const cuda::Fp4Operand& a,
              const float* alphas, int algorithm, void* workspace, Stream stream);

}  // namespace nibble::cublaslt
