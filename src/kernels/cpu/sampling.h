#pragma once

#include "ops/model_ops.h"

namespace nibble::cpu {

extern const SamplingImpl kPortableSampling;  // "cpu_portable_sampling"

}  // namespace nibble::cpu
