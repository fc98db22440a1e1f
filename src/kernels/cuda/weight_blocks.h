// How prepared 4-bit weights are cut, whatever an architecture puts where inside.
//
// Blocks of 16 rows x 128 of k, 1152 bytes each, ordered [k / 128][n / 16], so that a tile of rows
// is one contiguous piece of memory per 128 of k. Rows are padded to 16 and k to 128 with zeros.
// With WeightTensor::gate_up a block has eight rows of gate and the same eight of up, so that one
// warp has both.
#pragma once

#include <cstdint>

#include "base/host_device.h"

namespace nibble::cuda {

inline constexpr int kBlockRows = 16;
inline constexpr int kBlockK = 128;
inline constexpr int kBlockCodeBytes = kBlockRows * kBlockK / 2;
inline constexpr int kBlockScaleBytes = kBlockRows * kBlockK / 16;
inline constexpr int kBlockBytes = kBlockCodeBytes + kBlockScaleBytes;

NIBBLE_HD constexpr int64_t row_blocks(int64_t n) { return (n + kBlockRows - 1) / kBlockRows; }
NIBBLE_HD constexpr int64_t k_blocks(int64_t k) { return (k + kBlockK - 1) / kBlockK; }
NIBBLE_HD constexpr int64_t all_block_bytes(int64_t n, int64_t k) {
  return row_blocks(n) * k_blocks(k) * kBlockBytes;
}
NIBBLE_HD constexpr int64_t block_offset(int64_t row_block, int64_t k_block, int64_t n) {
  return (k_block * row_blocks(n) + row_block) * kBlockBytes;
}

// Where row `row` of the weights lies.
NIBBLE_HD constexpr int64_t packed_row(int64_t row, int64_t n, bool gate_up) {
  if (!gate_up) return row;
  const bool up = row >= n / 2;
  const int64_t column = up ? row - n / 2 : row;
  return column / 8 * kBlockRows + column % 8 + (up ? 8 : 0);
}
// The row that lies at `packed`; n where none does.
NIBBLE_HD constexpr int64_t unpacked_row(int64_t packed, int64_t n, bool gate_up) {
  if (!gate_up) return packed < n ? packed : n;
  const int64_t column = packed / kBlockRows * 8 + packed % 8;
  if (column >= n / 2) return n;
  return packed % kBlockRows < 8 ? column : n / 2 + column;
}

}  // namespace nibble::cuda
