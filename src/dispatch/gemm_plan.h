// For what a GemmPlan chooses kernels.
#pragma once

#include <span>
#include <vector>

#include "nibble/gemm.h"
#include "ops/gemm.h"

namespace nibble {

// The descriptors of a plan's choices, m ascending: every m up to 16, then four in each power of
// two, each choice made for the largest m of its range.
std::vector<GemmDesc> planned_descs(const PreparedWeight& weight, const GemmOptions& options,
                                    const DeviceInfo& device);

// How the block scales of m rows should lie, the best first.
std::span<const ScaleLayout> preferred_layouts(int64_t m);

// The first layout that takes the tensor and that a usable implementation reads. Throws
// kUnsupported with every refusal.
const WeightLayoutImpl& choose_layout(const WeightTensor& tensor, const Device& device,
                                      ActivationMode activation);

}  // namespace nibble
