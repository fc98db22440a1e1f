#include "kernels/cuda/tensor_map.h"

#include <cuda_runtime_api.h>

#include "base/check.h"
#include "base/cuda_check.h"

namespace nibble::cuda {
namespace {

constexpr int kBoxCols = 64;  // 128 bytes, the widest that the swizzle takes
constexpr int kSinceVersion = 12000;

// From the driver that is there, so that programs start without one.
decltype(&cuTensorMapEncodeTiled) encode_function() {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result;
  NIBBLE_CUDA_CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found,
                                                     kSinceVersion, cudaEnableDefault, &result));
  NIBBLE_CHECK(result == cudaDriverEntryPointSuccess, ErrorCode::kDevice,
               "the CUDA driver has no cuTensorMapEncodeTiled: 12.0 or newer is needed");
  return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(found);
}

const auto& encoder() {
  static const auto encode = encode_function();
  return encode;
}

}  // namespace

void load_tensor_map_encoder() { encoder(); }

CUtensorMap tensor_map_16bit(const void* data, int64_t rows, int64_t cols, int64_t row_bytes,
                             int box_rows) {
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(cols), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(row_bytes)};
  const cuuint32_t box[] = {kBoxCols, static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[] = {1, 1};
  CUtensorMap map;
  const CUresult status =
      encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 2, const_cast<void*>(data), sizes, strides,
                box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  NIBBLE_CHECK(status == CUDA_SUCCESS, ErrorCode::kDevice,
               "tensor map of {} x {} at {}, {} bytes a row: refused by the driver with error {}",
               rows, cols, data, row_bytes, static_cast<int>(status));
  return map;
}

}  // namespace nibble::cuda
