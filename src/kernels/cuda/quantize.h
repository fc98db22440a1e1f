#pragma once

#include "ops/quantize.h"

namespace nibble::cuda {

extern const QuantizeImpl kQuantize;      // "cuda_quantize"
extern const DequantizeImpl kDequantize;  // "cuda_dequantize"

}  // namespace nibble::cuda
