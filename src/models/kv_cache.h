// Keys and values of one sequence, fp32, for the whole context.
#pragma once

#include <cstdint>

#include "models/anonymous_memory.h"
#include "ops/impl.h"

namespace nibble {

// Per layer and kind kv_heads planes of [context, head_dim]. Reserved at once, so that nothing is
// ever moved or allocated per token; only positions that were written are resident.
class KvCache {
 public:
  KvCache() = default;
  KvCache(int64_t layers, int64_t kv_heads, int64_t context, int64_t head_dim);

  // Copies `rows` rows of [kv_heads * head_dim] keys and values to positions past, past + 1, ...
  void store(int64_t layer, int64_t past, int64_t rows, const MatrixView& k, const MatrixView& v);

  const float* keys(int64_t layer) const { return plane(2 * layer); }
  const float* values(int64_t layer) const { return plane(2 * layer + 1); }
  int64_t head_stride() const { return context_ * head_dim_; }  // elements

 private:
  float* plane(int64_t i) const {
    return static_cast<float*>(memory_.data()) + i * kv_heads_ * head_stride();
  }

  int64_t kv_heads_ = 0;
  int64_t context_ = 0;
  int64_t head_dim_ = 0;
  AnonymousMemory memory_;
};

}  // namespace nibble
