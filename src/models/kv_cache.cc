#include "models/kv_cache.h"

#include <algorithm>

namespace nibble {

KvCache::KvCache(int64_t layers, int64_t kv_heads, int64_t context, int64_t head_dim)
    : kv_heads_(kv_heads),
      context_(context),
      head_dim_(head_dim),
      memory_(static_cast<size_t>(2 * layers * kv_heads * context * head_dim) * sizeof(float),
              "the KV cache (a smaller context needs less)") {}

void KvCache::store(int64_t layer, int64_t past, int64_t rows, const MatrixView& k,
                    const MatrixView& v) {
  const auto copy = [&](const MatrixView& source, float* planes) {
    for (int64_t head = 0; head < kv_heads_; ++head) {
      float* to = planes + head * head_stride() + past * head_dim_;
      for (int64_t row = 0; row < rows; ++row, to += head_dim_) {
        std::copy_n(source.row<const float>(row) + head * head_dim_, head_dim_, to);
      }
    }
  };
  copy(k, plane(2 * layer));
  copy(v, plane(2 * layer + 1));
}

}  // namespace nibble
