// Carries a plan out.
#pragma once

#include "quantizer/plan.h"

namespace nibble {

// Quantizes and copies what `plan` says, from `source` to `writer`, on the device's threads, and
// reports the tensors. Throws as quantize_checkpoint says; nothing runs any more then.
QuantizeReport run_plan(const Checkpoint& source, const QuantizePlan& plan,
                        const QuantizeOptions& options, const Device& device,
                        CheckpointWriter& writer, const QuantizeProgressFn& progress);

}  // namespace nibble
