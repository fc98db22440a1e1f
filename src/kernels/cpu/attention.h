#pragma once

#include "ops/model_ops.h"

namespace nibble::cpu {

extern const AttentionImpl kPortableAttention;  // "cpu_portable_attention": fp32 throughout

}  // namespace nibble::cpu
