// Packs canonical 4-bit weights into the blocks of blocks.h, on the host.
#pragma once

#include <cstdint>

#include "kernels/sm90/blocks.h"
#include "ops/gemm.h"

namespace nibble::sm90 {

// Whether every block scale of every row can be written; reads an MXFP4 tensor's scales, if it has
// them yet.
Support can_pack(const WeightTensor& tensor);

// Writes the blocks of one row of blocks to `packed` (the whole matrix, packed_bytes(n, k)) and
// alpha times the row's power of two, NaN where a scale is NaN, to row_alpha[16 row_block ..].
void pack_rows(const WeightTensor& tensor, int64_t row_block, uint8_t* packed, float* row_alpha);

// Row `row` (0..15) of one block: code times block scale without the row's power of two.
void unpack_block_row(const uint8_t* block, int row, float* out);

}  // namespace nibble::sm90
