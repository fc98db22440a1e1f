#include "kernels/cuda/tensor_map.h"

#include "base/check.h"
#include "base/cuda_driver.h"

namespace nibble::cuda {
namespace {

constexpr int kBoxCols = 64;  // 128 bytes, the widest that the swizzle takes

// Innermost first; a stride, in bytes, of each but that.
struct Boxes {
  uint32_t rank;
  uint64_t sizes[3], strides[2];
  uint32_t box[3];
};

CUtensorMap encode(const Boxes& b, const void* data) {
  constexpr cuuint32_t kSteps[] = {1, 1, 1};
  CUtensorMap map;
  const CUresult status = driver().tensor_map_encode_tiled(
      &map, CU_TENSOR_MAP_DATA_TYPE_UINT16, b.rank, const_cast<void*>(data), b.sizes, b.strides,
      b.box, kSteps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  NIBBLE_CHECK(status == CUDA_SUCCESS, ErrorCode::kDevice,
               "tensor map of {} x {} at {}, {} bytes a row: refused by the driver with error {}",
               b.sizes[1], b.sizes[0], data, b.strides[0], static_cast<int>(status));
  return map;
}

}  // namespace

CUtensorMap tensor_map_16bit(const void* data, int64_t rows, int64_t cols, int64_t row_bytes,
                             int box_rows) {
  return encode({.rank = 2,
                 .sizes = {uint64_t(cols), uint64_t(rows)},
                 .strides = {uint64_t(row_bytes)},
                 .box = {kBoxCols, uint32_t(box_rows)}},
                data);
}

CUtensorMap tensor_map_16bit_pairs(const void* data, int64_t rows, int64_t cols, int64_t row_bytes,
                                   int box_rows) {
  return encode({.rank = 3,
                 .sizes = {kBoxCols, uint64_t(rows), uint64_t(cols) / kBoxCols},
                 .strides = {uint64_t(row_bytes), kBoxCols * 2},
                 .box = {kBoxCols, uint32_t(box_rows), 2}},
                data);
}

}  // namespace nibble::cuda
