// 4-bit weights as every sm_90 kernel reads them: widened to bf16 in registers, as the 16-row
// operand of mma.sync.m16n8k16 and (four warps side by side) the register operand of wgmma.
//
// Blocks of 16 rows x 128 of k, 1152 bytes each, ordered [k / 128][n / 16], so that a tile of rows
// is one contiguous piece of memory per 128 of k. Rows are padded to 16 and k to 128 with zeros.
// Inside a block, lane = 4 g + t owns the codes of rows g and g + 8:
//   codes   1024 B: byte 512 h + 16 lane + 4 j holds the word of k16 step s = 4 h + j, that is
//           k = 16 s + {2t, 2t+1, 2t+8, 2t+9} of both rows. The bits of the words of steps 2i and
//           2i + 1 are interleaved as widen.h takes them apart.
//   scales  128 B: word 4 g + i holds rows g and g + 8, steps 2i and 2i + 1 (widen.h has the bits).
// A scale is a byte, exponent and three mantissa bits: kScaleBias counts its exponent from 2^-22.
// Signs of scales move to the codes; the codes of a block with scale 0 are 0; a row with a NaN
// scale is marked by its row_alpha. MXFP4 scales are counted down from the row's largest, whose
// power of two goes into row_alpha.
//
// The alternative that lost was a k order that saves the decode kernel its ldmatrix: TMA can't
// permute the activations to match, and a second copy of the weights costs more than it saves.
#pragma once

#include <cstdint>

#include "base/host_device.h"

namespace nibble::sm90 {

inline constexpr int kBlockRows = 16;
inline constexpr int kBlockK = 128;
inline constexpr int kBlockCodeBytes = kBlockRows * kBlockK / 2;
inline constexpr int kBlockScaleBytes = kBlockRows * kBlockK / 16;
inline constexpr int kBlockBytes = kBlockCodeBytes + kBlockScaleBytes;

// Where row `row` of the weights lies: with WeightTensor::gate_up a block has eight rows of gate
// and the same eight of up, so that a lane has both.
NIBBLE_HD constexpr int64_t packed_row(int64_t row, int64_t n, bool gate_up) {
  if (!gate_up) return row;
  const bool up = row >= n / 2;
  const int64_t column = up ? row - n / 2 : row;
  return column / 8 * kBlockRows + column % 8 + (up ? 8 : 0);
}

NIBBLE_HD constexpr int64_t row_blocks(int64_t n) { return (n + kBlockRows - 1) / kBlockRows; }
NIBBLE_HD constexpr int64_t k_blocks(int64_t k) { return (k + kBlockK - 1) / kBlockK; }
// What a kernel may read behind the last block, for tiles of more rows than there are.
inline constexpr int64_t kTailBytes = 32 * kBlockBytes;
NIBBLE_HD constexpr int64_t packed_bytes(int64_t n, int64_t k) {
  return row_blocks(n) * k_blocks(k) * kBlockBytes + kTailBytes;
}
NIBBLE_HD constexpr int64_t block_offset(int64_t row_block, int64_t k_block, int64_t n) {
  return (k_block * row_blocks(n) + row_block) * kBlockBytes;
}

}  // namespace nibble::sm90
