// Prepared weights of weight_blocks.h: packed on the host, kept in device memory.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cuda/weight_blocks.h"
#include "ops/gemm.h"

namespace nibble::cuda {

struct BlockLayout {
  WeightLayout layout;
  int64_t tail_bytes;  // that kernels may read behind the last block
  // Writes one row of blocks to `packed` (the whole matrix) and what its rows are multiplied by to
  // row_alpha[16 row_block ..], NaN where a scale is NaN.
  void (*pack_rows)(const WeightTensor& tensor, int64_t row_block, uint8_t* packed,
                    float* row_alpha);
  decltype(PreparedWeight::decode_row) decode_row;
};
PreparedWeight prepare_blocks(const WeightTensor& tensor, const BlockLayout& layout, Stream stream);

// Row i back from device memory, for the embedding's and the tests' sake.
struct BlockRow {
  std::vector<uint8_t> blocks;  // k_blocks(k) of them
  int row;                      // in each
  float alpha;
};
BlockRow read_block_row(const PreparedWeight& weight, int64_t i);

}  // namespace nibble::cuda
