// Attention over one tile of keys. Many queries read the keys transposed, so that a vector holds
// one element of many keys and no sum runs across lanes; a few are not worth the transposing.
// Included after a Vec and vector/math.h.
#pragma once

#include "kernels/cpu/unroll.h"
#include "kernels/cpu/vector_loops.h"

namespace nibble::cpu {
namespace {

using Scores = float[kAttentionKeys];

template <int kRows>
void score_transposed(const AttentionTile& a, Scores* scores) {
  constexpr int kStep = 2 * Vec::kWidth;
  for (int key = 0; key < a.keys; key += kStep) {
    Vec::F acc[kRows][2];
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) acc[r][0] = acc[r][1] = Vec::zero();
    for (int64_t d = 0; d < a.head_dim; ++d) {
      const Vec::F k0 = Vec::load(a.kt + d * kAttentionKeys + key);
      const Vec::F k1 = Vec::load(a.kt + d * kAttentionKeys + key + Vec::kWidth);
      NIBBLE_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const Vec::F q = Vec::set1(a.q[r * a.q_stride + d]);
        acc[r][0] = Vec::fma(q, k0, acc[r][0]);
        acc[r][1] = Vec::fma(q, k1, acc[r][1]);
      }
    }
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      Vec::store(scores[r] + key, acc[r][0]);
      Vec::store(scores[r] + key + Vec::kWidth, acc[r][1]);
    }
  }
}

template <int kRows>
void score_rows(const AttentionTile& a, Scores* scores) {
  for (int key = 0; key < a.keys; key += 4) {
    // The values come next; while one token's weights went by they left the caches.
    const char* const values = reinterpret_cast<const char*>(a.v + key * a.head_dim);
    for (int64_t i = 0; i < 16 * a.head_dim; i += 64) _mm_prefetch(values + i, _MM_HINT_T0);
    const float* k[4];
    NIBBLE_UNROLL
    for (int i = 0; i < 4; ++i) {
      k[i] = a.k + (key + i < a.keys ? key + i : a.keys - 1) * a.head_dim;
    }
    for (int r = 0; r < kRows; ++r) {
      const float* q = a.q + r * a.q_stride;
      Vec::F acc[4];
      NIBBLE_UNROLL
      for (int i = 0; i < 4; ++i) acc[i] = Vec::zero();
      int64_t d = 0;
      for (; d + Vec::kWidth <= a.head_dim; d += Vec::kWidth) {
        const Vec::F x = Vec::load(q + d);
        NIBBLE_UNROLL
        for (int i = 0; i < 4; ++i) acc[i] = Vec::fma(x, Vec::load(k[i] + d), acc[i]);
      }
      if (d < a.head_dim) {
        const int64_t n = a.head_dim - d;
        const Vec::F x = Vec::load_some(q + d, n);
        NIBBLE_UNROLL
        for (int i = 0; i < 4; ++i) acc[i] = Vec::fma(x, Vec::load_some(k[i] + d, n), acc[i]);
      }
      _mm_storeu_ps(scores[r] + key, Vec::sum4(acc[0], acc[1], acc[2], acc[3]));
    }
  }
}

// Scores -> weights relative to the new maximum; 0 for keys that row r must not see. Returns what
// the earlier tiles' sums must be multiplied by.
float soften(const AttentionTile& a, int r, float* scores) {
  const int64_t seen = a.visible + r < a.keys ? a.visible + r : a.keys;
  const Vec::F lowest = Vec::set1(-__builtin_inff());
  Vec::F best = Vec::set1(a.largest[r]);
  for (int key = 0; key < a.keys; key += Vec::kWidth) {
    const Vec::F s = Vec::mul(Vec::load(scores + key), Vec::set1(a.scale));
    Vec::store(scores + key, s);
    best = Vec::max(best, Vec::first(seen > key ? seen - key : 0, s, lowest));
  }
  const float largest = Vec::largest(best);
  const Vec::F shift = Vec::set1(largest);
  Vec::F total = Vec::zero();
  for (int key = 0; key < a.keys; key += Vec::kWidth) {
    const Vec::F p = exp(Vec::sub(Vec::load(scores + key), shift));
    const Vec::F kept = Vec::first(seen > key ? seen - key : 0, p, Vec::zero());
    Vec::store(scores + key, kept);
    total = Vec::add(total, kept);
  }
  float factor[Vec::kWidth];
  Vec::store(factor, exp(Vec::sub(Vec::set1(a.largest[r]), shift)));
  a.largest[r] = largest;
  a.total[r] = a.total[r] * factor[0] + Vec::sum(total);
  return factor[0];
}

// sum = sum * factor + weights * V for kVecs vectors of each row, the last of `last` elements.
template <int kRows, int kVecs>
void add_values(const AttentionTile& a, const Scores* weights, const float* factor, int64_t d,
                int64_t last) {
  constexpr int kWidth = Vec::kWidth;
  Vec::F acc[kRows][kVecs];
  NIBBLE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    NIBBLE_UNROLL
    for (int i = 0; i < kVecs; ++i) {
      const float* sum = a.sum + r * a.head_dim + d + i * kWidth;
      acc[r][i] =
          Vec::mul(Vec::load_some(sum, i + 1 < kVecs ? kWidth : last), Vec::set1(factor[r]));
    }
  }
  for (int key = 0; key < a.keys; ++key) {
    const float* v = a.v + key * a.head_dim + d;
    Vec::F x[kVecs];
    NIBBLE_UNROLL
    for (int i = 0; i < kVecs; ++i) {
      x[i] = i + 1 < kVecs || last >= kWidth ? Vec::load(v + i * kWidth)
                                             : Vec::load_some(v + i * kWidth, last);
    }
    NIBBLE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const Vec::F p = Vec::set1(weights[r][key]);
      NIBBLE_UNROLL
      for (int i = 0; i < kVecs; ++i) acc[r][i] = Vec::fma(p, x[i], acc[r][i]);
    }
  }
  NIBBLE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    NIBBLE_UNROLL
    for (int i = 0; i < kVecs; ++i) {
      Vec::store_some(a.sum + r * a.head_dim + d + i * kWidth, i + 1 < kVecs ? kWidth : last,
                      acc[r][i]);
    }
  }
}

template <int kRows>
void attend_rows(const AttentionTile& a) {
  alignas(64) Scores scores[kRows];
  if (a.kt != nullptr) {
    score_transposed<kRows>(a, scores);
  } else {
    score_rows<kRows>(a, scores);
  }
  float factor[kRows];
  for (int r = 0; r < kRows; ++r) factor[r] = soften(a, r, scores[r]);
  int64_t d = 0;
  for (; d + 2 * Vec::kWidth <= a.head_dim; d += 2 * Vec::kWidth) {
    add_values<kRows, 2>(a, scores, factor, d, Vec::kWidth);
  }
  for (; d < a.head_dim; d += Vec::kWidth) {
    add_values<kRows, 1>(a, scores, factor, d, a.head_dim - d);
  }
}

template <int kRows = kAttentionRows>
void attend_any(const AttentionTile& a) {
  if constexpr (kRows > 1) {
    if (a.rows < kRows) return attend_any<kRows - 1>(a);
  }
  attend_rows<kRows>(a);
}

void attend(AttentionTile a) {
  // Keys behind the last row's own are seen by none.
  if (a.visible + a.rows - 1 < a.keys) a.keys = static_cast<int>(a.visible + a.rows - 1);
  attend_any(a);
}

}  // namespace
}  // namespace nibble::cpu
