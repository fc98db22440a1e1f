// 4-bit weights as the sm_120 kernels read them: the registers of the 16-row operand of
// mma.sync.m16n8k64, lane by lane, nothing re-encoded.
//
// Cut into blocks as kernels/cuda/weight_blocks.h says. Inside one:
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

#include "kernels/cuda/weight_blocks.h"

namespace nibble::sm120 {

using cuda::block_offset;
using cuda::k_blocks;
using cuda::kBlockBytes;
using cuda::kBlockCodeBytes;
using cuda::kBlockK;
using cuda::kBlockRows;
using cuda::packed_row;
using cuda::row_blocks;
using cuda::unpacked_row;

inline constexpr int kStepK = 64;

NIBBLE_HD constexpr int64_t packed_bytes(int64_t n, int64_t k) {
  return cuda::all_block_bytes(n, k);
}

}  // namespace nibble::sm120
