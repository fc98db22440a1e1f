// What the GEMMs of sm_90 have in common: which operands they take, and how they are handed over.
#pragma once

#include "kernels/sm90/gemm_params.h"
#include "ops/gemm.h"

namespace nibble::sm90 {

// Device, layout, types and sizes.
Support takes_operands(const GemmDesc& desc, const DeviceInfo& device);

// Throws kInvalidArgument for pointers and strides that a kernel could not use.
void check_operands(const GemmArgs& args, Stream stream);

// D and C from token `first` on.
Output output_from(const GemmArgs& args, int64_t first);

}  // namespace nibble::sm90
