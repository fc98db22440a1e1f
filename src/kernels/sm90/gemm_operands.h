// What the GEMMs that read this layout have in common: which operands they take, and how they are
// handed over. kernels/sm80 uses all of it but the device.
#pragma once

#include "kernels/sm90/gemm_params.h"
#include "kernels/sm90/widen.h"
#include "ops/gemm.h"

namespace nibble::sm90 {

// Device, layout, types and sizes; all but the device.
Support takes_operands(const GemmDesc& desc, const DeviceInfo& device);
Support takes_problem(const GemmDesc& desc);

// Throws kInvalidArgument for pointers and strides that a kernel could not use. Where kernels are
// only loaded there are none.
void check_operands(const GemmArgs& args, Stream stream);

// A in 16 bits: as given, or, in ActivationMode::kFp4, quantized and widened into the front of the
// workspace.
struct Activations {
  const uint16_t* data = nullptr;
  int64_t stride = 0;
  Wide type = Wide::kBF16;
  const float* scale = nullptr;  // Output::a_scale
  // Made by a kernel that waited for all before it: a GEMM that waits for that one may start early.
  bool own_kernel = false;
};
size_t activation_bytes(const GemmDesc& desc);
Activations prepare_activations(const GemmArgs& args, Stream stream);

// D, C and the bias.
Output output_of(const GemmArgs& args, const Activations& a);

}  // namespace nibble::sm90
