// Packs canonical 4-bit weights into the blocks of blocks.h, on the host.
#pragma once

#include <cstdint>

#include "kernels/sm120/blocks.h"
#include "ops/gemm.h"

namespace nibble::sm120 {

// Writes the blocks of one row of blocks to `packed` (the whole matrix, packed_bytes(n, k)), and to
// row_alpha[16 row_block ..] the rows' global scales, NaN for a row with a NaN scale, 0 behind n.
void pack_rows(const WeightTensor& tensor, int64_t row_block, uint8_t* packed, float* row_alpha);

// Row `row` (0..15) of one block: code times block scale.
void unpack_block_row(const uint8_t* block, int row, WeightFormat format, float* out);

}  // namespace nibble::sm120
