#pragma once

#include "ops/quantize.h"

namespace nibble::ref {

extern const QuantizeImpl kQuantize;      // "ref_quantize": every format, method, type and layout
extern const DequantizeImpl kDequantize;  // "ref_dequantize"

}  // namespace nibble::ref
