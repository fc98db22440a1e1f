// The block scales of 4-bit matrices: how much memory they take and how to change their order.
#pragma once

#include <cstdint>
#include <span>

#include "nibble/types.h"

namespace nibble {

// Bytes of the scales of an [m, k] matrix, padding included: tiles of 128 x 4 and 8 x 4 are whole.
// 0 where m or k is 0. Throws kInvalidArgument unless the format has blocks, k is a whole number of
// them, and m and k are in [0, 2^31).
int64_t scale_bytes(WeightFormat format, ScaleLayout layout, int64_t m, int64_t k);

// Rewrites the scales of a rows x cols matrix (of scales: cols is k / 16 for NVFP4, k / 32 for
// MXFP4) from one layout to another, on the host; padding in dst is zeroed, padding in src is not
// read. Throws kInvalidArgument unless rows and cols are in [0, 2^31), the spans have exactly the
// bytes of their layout, and they do not overlap.
void convert_scales(ScaleLayout from, ScaleLayout to, int64_t rows, int64_t cols,
                    std::span<const uint8_t> src, std::span<uint8_t> dst);

}  // namespace nibble
