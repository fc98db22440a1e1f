// 4-bit weights as the sm_120 kernels read them: the registers of the 16-row operand of
// mma.sync.m16n8k64, lane by lane, nothing re-encoded.
//
// Blocks of 16 rows x 128 of k, 1152 bytes each, ordered [k / 128][n / 16], so that a tile of rows
// is one contiguous piece of memory per 128 of k. Rows are padded to 16 and k to 128 with zeros.
//   codes   1024 B: byte 512 s + 16 lane + 4 r is register r of that lane in k64 step s
//   scales  128 B: word `lane` = 4g + t has row g + 8 (t % 2) in step t / 2, so that one load has
//           both steps' scales where thread-id-a is the step. NVFP4: four bytes; MXFP4: the low two
// Signs of scales move to the codes; a row with a NaN scale is marked by its row_alpha, and that
// scale is 0.
//
// The alternative that lost is the checkpoint's row-major order with ldmatrix: it needs padding in
// shared memory and twice the instructions for what is loaded once.
#pragma once

#include <cstdint>

#include "base/host_device.h"

namespace nibble::sm120 {

inline constexpr int kBlockRows = 16;
inline constexpr int kBlockK = 128;
inline constexpr int kStepK = 64;
inline constexpr int kBlockCodeBytes = kBlockRows * kBlockK / 2;
inline constexpr int kBlockBytes = kBlockCodeBytes + 32 * 4;

NIBBLE_HD constexpr int64_t row_blocks(int64_t n) { return (n + kBlockRows - 1) / kBlockRows; }
NIBBLE_HD constexpr int64_t k_blocks(int64_t k) { return (k + kBlockK - 1) / kBlockK; }
NIBBLE_HD constexpr int64_t block_offset(int64_t row_block, int64_t k_block, int64_t n) {
  return (k_block * row_blocks(n) + row_block) * kBlockBytes;
}
NIBBLE_HD constexpr int64_t packed_bytes(int64_t n, int64_t k) {
  return row_blocks(n) * k_blocks(k) * kBlockBytes;
}

// Where row `row` of the weights lies: with WeightTensor::gate_up a block has eight rows of gate
// and the same eight of up.
NIBBLE_HD constexpr int64_t packed_row(int64_t row, int64_t n, bool gate_up) {
  if (!gate_up) return row;
  const bool up = row >= n / 2;
  const int64_t column = up ? row - n / 2 : row;
  return column / 8 * kBlockRows + column % 8 + (up ? 8 : 0);
}

}  // namespace nibble::sm120
