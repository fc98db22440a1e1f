// Where the block scale of (row, block column) lies in memory. rows x cols counts scales: cols is
// K / 16 for NVFP4, K / 32 for MXFP4.
//   kLinear         row-major, no padding
//   kSwizzled128x4  tiles of 128 rows x 4 columns, 512 bytes each, tiles row-major. Inside a tile
//                   byte (row % 32) * 16 + (row / 32 % 4) * 4 + col % 4: what cuBLASLt, CUTLASS and
//                   tcgen05 read (cuBLAS documentation, "1D block scaling factors layout")
//   kSwizzled8x4    tiles of 8 rows x 4 columns, 32 bytes each, row-major inside: TensorRT-LLM's
//                   layout for few tokens
// Swizzled layouts are padded to whole tiles; the padding holds zeros.
#pragma once

#include <cstdint>

#include "base/host_device.h"
#include "nibble/scales.h"
#include "nibble/types.h"

namespace nibble {

// Rows in a tile; 1 for kLinear.
NIBBLE_HD constexpr int64_t scale_tile_rows(ScaleLayout layout) {
  return layout == ScaleLayout::kSwizzled128x4 ? 128 : layout == ScaleLayout::kSwizzled8x4 ? 8 : 1;
}

// Scales along a row, padding included.
NIBBLE_HD constexpr int64_t padded_scale_cols(ScaleLayout layout, int64_t cols) {
  return layout == ScaleLayout::kLinear ? cols : (cols + 3) / 4 * 4;
}

// Bytes of the scales of a rows x cols matrix, padding included. 0 if rows or cols is 0.
NIBBLE_HD constexpr int64_t scale_bytes(ScaleLayout layout, int64_t rows, int64_t cols) {
  const int64_t tile = scale_tile_rows(layout);
  return (rows + tile - 1) / tile * tile * padded_scale_cols(layout, cols);
}

// Byte offset of scale (row, col) of a matrix with `cols` scales a row. Padding positions, inside
// the last tile but outside the matrix, are valid arguments.
NIBBLE_HD constexpr int64_t scale_offset(ScaleLayout layout, int64_t row, int64_t col,
                                         int64_t cols) {
  if (layout == ScaleLayout::kLinear) return row * cols + col;
  const int64_t tile = scale_tile_rows(layout);
  const int64_t base = row / tile * tile * padded_scale_cols(layout, cols) + col / 4 * tile * 4;
  if (layout == ScaleLayout::kSwizzled8x4) return base + row % 8 * 4 + col % 4;
  return base + row % 32 * 16 + row % 128 / 32 * 4 + col % 4;
}

}  // namespace nibble
