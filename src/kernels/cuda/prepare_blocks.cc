#include "kernels/cuda/prepare_blocks.h"

#include <memory>

#include "base/cuda.h"
#include "base/thread_pool.h"

namespace nibble::cuda {

PreparedWeight prepare_blocks(const WeightTensor& tensor, const BlockLayout& layout,
                              Stream stream) {
  const auto blocks = static_cast<size_t>(all_block_bytes(tensor.n, tensor.k));
  std::vector<uint8_t> packed(blocks + static_cast<size_t>(layout.tail_bytes));
  std::vector<float> row_alpha(static_cast<size_t>(row_blocks(tensor.n)) * kBlockRows);
  const auto pack = [&](int64_t begin, int64_t end) {
    for (int64_t rb = begin; rb < end; ++rb) {
      layout.pack_rows(tensor, rb, packed.data(), row_alpha.data());
    }
  };
  if (stream.pool != nullptr) {
    stream.pool->parallel_for(row_blocks(tensor.n), 1, pack);
  } else {
    pack(0, row_blocks(tensor.n));
  }
  const size_t alpha_bytes = row_alpha.size() * sizeof(float);
  const auto memory = std::make_shared<Buffer>(stream.index, packed.size() + alpha_bytes);
  copy(memory->data(), packed.data(), packed.size(), stream.cuda);
  copy(memory->data() + packed.size(), row_alpha.data(), alpha_bytes, stream.cuda);
  synchronize(stream.cuda);

  PreparedWeight w;
  static_cast<WeightTensor&>(w) = tensor;
  w.layout = layout.layout;
  w.codes = memory->data();
  w.scales = nullptr;
  w.row_alpha = reinterpret_cast<const float*>(memory->data() + packed.size());
  w.bytes = blocks;
  w.device = stream.index;
  w.decode_row = layout.decode_row;
  w.owner = memory;
  return w;
}

BlockRow read_block_row(const PreparedWeight& w, int64_t i) {
  const int64_t packed = packed_row(i, w.n, w.gate_up);
  BlockRow row{std::vector<uint8_t>(static_cast<size_t>(k_blocks(w.k)) * kBlockBytes),
               static_cast<int>(packed % kBlockRows), 0.0f};
  for (int64_t kb = 0; kb < k_blocks(w.k); ++kb) {
    copy(row.blocks.data() + kb * kBlockBytes, w.codes + block_offset(packed / kBlockRows, kb, w.n),
         kBlockBytes, nullptr);
  }
  copy(&row.alpha, w.row_alpha + packed, sizeof(row.alpha), nullptr);
  synchronize(nullptr);
  return row;
}

}  // namespace nibble::cuda
