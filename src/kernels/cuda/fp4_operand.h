// The activations of a GEMM in ActivationMode::kFp4: as they were given, or quantized in front of
// it into the workspace.
#pragma once

#include "ops/gemm.h"

namespace nibble::cuda {

struct Fp4Operand {
  const uint8_t* codes = nullptr;
  int64_t stride = 0;  // bytes from row to row
  const uint8_t* scales = nullptr;
  ScaleLayout layout = ScaleLayout::kLinear;
  // The global decode scale: scale_memory's float on the device, or, where that is null, scale.
  const float* scale_memory = nullptr;
  float scale = 1.0f;
};

// What quantizing takes of the workspace, in bytes from its begin; nothing where A is given.
struct Fp4Workspace {
  size_t codes, scales, scale, quantize, end;

  Fp4Workspace(const GemmDesc& desc, ScaleLayout layout, size_t begin);
};

// Refuses an A that can be neither taken as it is, with scales in `layout`, nor quantized. Vendors'
// kernels multiply what pads a tile of scales along k, by zero codes: a NaN there would spread, and
// what a caller padded with is not known.
Support takes_fp4_activations(const GemmDesc& desc, ScaleLayout layout);

// Throws kInvalidArgument for an A that is not in the device's memory or not aligned: rows of codes
// to 16 bytes, their scales as told.
void check_fp4_activations(const GemmArgs& args, size_t scales_alignment, int device);

// What multiplies products of NVFP4 activations where the host knows it: b's static scale, 0 where
// there is none (this call's largest magnitude then gives it); 1 for MXFP4.
float static_activation_scale(const GemmArgs& args);

Fp4Operand given_activations(const GemmArgs& args);
Fp4Operand quantize_activations(const GemmArgs& args, ScaleLayout layout, const Fp4Workspace& at,
                                Stream stream);

// What multiplies the sums of each segment of a B in WeightLayout::kFp4Rows, in device memory:
// fp4_segment_scales times A's global scale, written to `memory` (fp4_alpha_bytes of it) by a
// kernel, so that nobody waits for the device. Throws kInvalidArgument unless b has
// desc.num_segments.
size_t fp4_alpha_bytes(const GemmDesc& desc);
const float* fp4_alphas(const GemmArgs& args, const Fp4Operand& a, float* memory, Stream stream);

// alphas[i] = a * scales[i], a being a_memory's float or, where that is null, a_value.
void launch_multiply_scales(const float* a_memory, float a_value, const float* scales, int count,
                            float* alphas, Stream stream);

}  // namespace nibble::cuda
