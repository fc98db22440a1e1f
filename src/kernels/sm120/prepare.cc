#include <algorithm>
#include <cmath>
#include <vector>

#include "base/cuda.h"
#include "base/thread_pool.h"
#include "kernels/sm120/gemm.h"
#include "kernels/sm120/layout.h"

namespace nibble::sm120 {
namespace {

// One row back from device memory, block by block; for the embedding's and the tests' sake.
void decode_row(const PreparedWeight& w, int64_t i, float* out) {
  const int64_t row = packed_row(i, w.n, w.gate_up);
  std::vector<uint8_t> blocks(static_cast<size_t>(k_blocks(w.k)) * kBlockBytes);
  for (int64_t kb = 0; kb < k_blocks(w.k); ++kb) {
    cuda::copy(blocks.data() + kb * kBlockBytes, w.codes + block_offset(row / kBlockRows, kb, w.n),
               kBlockBytes, nullptr);
  }
  float alpha;
  cuda::copy(&alpha, w.row_alpha + row, sizeof(alpha), nullptr);
  cuda::synchronize(nullptr);
  const float factor = std::isnan(alpha) ? alpha : 1.0f;  // a scale that the blocks do not hold
  for (int64_t kb = 0; kb < k_blocks(w.k); ++kb) {
    float values[kBlockK];
    unpack_block_row(blocks.data() + kb * kBlockBytes, static_cast<int>(row % kBlockRows), w.format,
                     values);
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
  const auto bytes = static_cast<size_t>(packed_bytes(tensor.n, tensor.k));
  std::vector<uint8_t> packed(bytes);
  std::vector<float> row_alpha(static_cast<size_t>(row_blocks(tensor.n)) * kBlockRows);
  const auto pack = [&](int64_t begin, int64_t end) {
    for (int64_t rb = begin; rb < end; ++rb) {
      pack_rows(tensor, rb, packed.data(), row_alpha.data());
    }
  };
  if (stream.pool != nullptr) {
    stream.pool->parallel_for(row_blocks(tensor.n), 1, pack);
  } else {
    pack(0, row_blocks(tensor.n));
  }
  const size_t alpha_bytes = row_alpha.size() * sizeof(float);
  const auto memory = std::make_shared<cuda::Buffer>(stream.index, bytes + alpha_bytes);
  cuda::copy(memory->data(), packed.data(), bytes, stream.cuda);
  cuda::copy(memory->data() + bytes, row_alpha.data(), alpha_bytes, stream.cuda);
  cuda::synchronize(stream.cuda);

  PreparedWeight w;
  static_cast<WeightTensor&>(w) = tensor;
  w.layout = WeightLayout::kSm120;
  w.codes = memory->data();
  w.scales = nullptr;
  w.row_alpha = reinterpret_cast<const float*>(memory->data() + bytes);
  w.bytes = bytes;
  w.decode_row = decode_row;
  w.owner = memory;
  return w;
}

}  // namespace nibble::sm120
