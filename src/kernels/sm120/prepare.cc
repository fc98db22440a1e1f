#include <algorithm>
#include <cmath>

#include "kernels/cuda/prepare_blocks.h"
#include "kernels/sm120/gemm.h"
#include "kernels/sm120/layout.h"

namespace nibble::sm120 {
namespace {

void decode_row(const PreparedWeight& w, int64_t i, float* out) {
  const cuda::BlockRow row = cuda::read_block_row(w, i);
  const float factor = std::isnan(row.alpha) ? row.alpha : 1.0f;  // a scale that no block holds
  for (int64_t kb = 0; kb < k_blocks(w.k); ++kb) {
    float values[kBlockK];
    unpack_block_row(row.blocks.data() + kb * kBlockBytes, row.row, w.format, values);
    const int64_t count = std::min<int64_t>(kBlockK, w.k - kb * kBlockK);
    for (int64_t j = 0; j < count; ++j) out[kb * kBlockK + j] = values[j] * factor;
  }
}

}  // namespace

Support can_hold(const WeightTensor& tensor) {
  if (is_fp4(tensor.format)) return Support::yes();
  return Support::no("holds nvfp4 and mxfp4, found {}", to_string(tensor.format));
}

PreparedWeight prepare(const WeightTensor& tensor, Stream stream) {
  return cuda::prepare_blocks(tensor, {WeightLayout::kSm120, 0, pack_rows, decode_row}, stream);
}

}  // namespace nibble::sm120
