// Descriptors for the copy engine's boxes of a matrix. For .cu files and their host side.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace nibble::cuda {

// Boxes of `box_rows` rows (1 .. 256) x 64 elements of a row-major matrix of 16-bit elements, laid
// out in shared memory with 128-byte swizzle; what is out of bounds arrives as zeros. `data` and
// `row_bytes` must be multiples of 16. Throws kDevice where the driver refuses, as it does where
// the calling thread has no context (DeviceScope).
CUtensorMap tensor_map_16bit(const void* data, int64_t rows, int64_t cols, int64_t row_bytes,
                             int box_rows);
// The same, for two such boxes side by side in one copy (tensor_copy with a z: of 64 columns), one
// behind the other in shared memory. `cols` must be a multiple of 64.
CUtensorMap tensor_map_16bit_pairs(const void* data, int64_t rows, int64_t cols, int64_t row_bytes,
                                   int box_rows);

}  // namespace nibble::cuda
