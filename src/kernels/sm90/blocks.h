// 4-bit weights as every sm_90 kernel reads them: widened to bf16 in registers, as the 16-row
// operand of mma.sync.m16n8k16 and (four warps side by side) the register operand of wgmma.
//
// Cut into blocks as kernels/cuda/weight_blocks.h says. Inside one, lane = 4 g + t owns the codes
// of rows g and g + 8:
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

#include "kernels/cuda/weight_blocks.h"

namespace nibble::sm90 {

using cuda::block_offset;
using cuda::k_blocks;
using cuda::kBlockBytes;
using cuda::kBlockCodeBytes;
using cuda::kBlockK;
using cuda::kBlockRows;
using cuda::packed_row;
using cuda::row_blocks;
using cuda::unpacked_row;

inline constexpr double kDramEfficiency = 0.875;  // of what the card says, to the cost models
inline constexpr int kSharedLimit = 227 * 1024;   // what sm_90 gives a block

// What a kernel may read behind the last block, for tiles of more rows than there are.
inline constexpr int64_t kTailBytes = 32 * kBlockBytes;
NIBBLE_HD constexpr int64_t packed_bytes(int64_t n, int64_t k) {
  return cuda::all_block_bytes(n, k) + kTailBytes;
}

}  // namespace nibble::sm90
