// WeightLayout::kFp4Rows: 4-bit weights as cuBLASLt and CUTLASS read them, in device memory.
//
// Codes are rows of k / 2 bytes, as checkpoints have them; k is a multiple of 32, so that every row
// is aligned to 16 bytes. Block scales are ScaleLayout::kSwizzled128x4, padding zero. Behind them
// lies one float a segment: its global decode scale, 1 for MXFP4. Whoever multiplies launches once
// a segment, with that segment's scale in alpha; segments therefore begin at whole tiles of scales,
// 128 rows. Rows of gate and up stay where they are.
//
// The hardware's block scales have no sign: a negative one is given to its block's codes. A NaN
// stays NaN and is left to the products (PreparedWeight::row_alpha is null).
#pragma once

#include <cstdint>
#include <span>

#include "formats/scale_layout.h"
#include "ops/gemm.h"

namespace nibble::cuda {

inline constexpr int64_t kFp4RowsTile = scale_tile_rows(ScaleLayout::kSwizzled128x4);

// Where things lie, in bytes from PreparedWeight::codes.
struct Fp4RowsPlaces {
  int64_t scales, segment_scales, end;

  Fp4RowsPlaces(WeightFormat format, int64_t n, int64_t k, size_t num_segments);
};

// A chip whose tensor cores multiply 4-bit floats.
inline constexpr int kFp4Chips[] = {100, 103, 120, 121};
Support multiplies_fp4(const DeviceInfo& device);

Support can_hold_rows(const WeightTensor& tensor);
// can_hold_rows, where multiplies_fp4.
Support can_prepare_rows(const WeightTensor& tensor, const DeviceInfo& device);
PreparedWeight prepare_rows(const WeightTensor& tensor, Stream stream);

// Rows [begin, end) of B that share a global scale, and what a launch for them is given.
struct Fp4Segment {
  int64_t begin = 0, end = 0;
  const uint8_t* codes = nullptr;
  const uint8_t* scales = nullptr;
};
int64_t num_fp4_segments(const PreparedWeight& weight);
Fp4Segment fp4_segment(const PreparedWeight& weight, int64_t index);
const float* fp4_segment_scales(const PreparedWeight& weight);  // in device memory

// The parts without a device: `packed` is Fp4RowsPlaces::end bytes, zero where nothing was written.
void pack_fp4_row(const WeightTensor& tensor, int64_t i, uint8_t* packed);
void pack_fp4_segment_scales(const WeightTensor& tensor, uint8_t* packed);
// One row from its codes and from the scales of the 128 rows that it is one of: code times scale.
void unpack_fp4_row(WeightFormat format, int64_t i, int64_t k, const uint8_t* codes,
                    const uint8_t* tile_scales, float* out);

}  // namespace nibble::cuda
