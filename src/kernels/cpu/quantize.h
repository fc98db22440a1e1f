#pragma once

#include "ops/quantize.h"

namespace nibble::cpu {

extern const QuantizeImpl kAvx2Quantize;          // "cpu_avx2_quantize"
extern const DequantizeImpl kAvx2Dequantize;      // "cpu_avx2_dequantize"
extern const QuantizeImpl kPortableQuantize;      // "cpu_portable_quantize"
extern const DequantizeImpl kPortableDequantize;  // "cpu_portable_dequantize"

}  // namespace nibble::cpu
