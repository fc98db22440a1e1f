#include <algorithm>
#include <cmath>

#include "kernels/cuda/prepare_blocks.h"
#include "kernels/sm90/gemm.h"
#include "kernels/sm90/layout.h"

namespace nibble::sm90 {
namespace {

Support can_prepare(const WeightTensor& tensor, const DeviceInfo& device) {
  if (device.kind != DeviceKind::kCuda) return Support::no("runs on a CUDA device only");
  if (device.sm < 80) {
    return Support::no("needs compute capability 8.0 or later, found sm_{}", device.sm);
  }
  return can_pack(tensor);
}

void decode_row(const PreparedWeight& w, int64_t i, float* out) {
  const cuda::BlockRow row = cuda::read_block_row(w, i);
  // NVFP4's alpha is PreparedWeight::alpha; MXFP4's is the row's power of two. NaN is either's.
  const bool own = w.format == WeightFormat::kMxfp4 || std::isnan(row.alpha);
  const float factor = own ? row.alpha : 1.0f;
  for (int64_t kb = 0; kb < k_blocks(w.k); ++kb) {
    float values[kBlockK];
    unpack_block_row(row.blocks.data() + kb * kBlockBytes, row.row, values);
    const int64_t count = std::min<int64_t>(kBlockK, w.k - kb * kBlockK);
    for (int64_t j = 0; j < count; ++j) out[kb * kBlockK + j] = values[j] * factor;
  }
}

PreparedWeight prepare(const WeightTensor& tensor, Stream stream) {
  return cuda::prepare_blocks(tensor, {WeightLayout::kSm90, kTailBytes, pack_rows, decode_row},
                              stream);
}

}  // namespace

const WeightLayoutImpl kLayout = {
    .layout = WeightLayout::kSm90, .can_prepare = can_prepare, .prepare = prepare};

}  // namespace nibble::sm90
