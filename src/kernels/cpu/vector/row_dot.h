// Dot products along k of rows that lie as the checkpoint has them: no copy, no preparation, and a
// single token streams them at the speed of memory. Included after a Vec.
#pragma once

#include "kernels/cpu/row_loops.h"
#include "kernels/cpu/unroll.h"

namespace nibble::cpu {
namespace {

// Sums, one row of weights and all tokens must fit the registers.
constexpr int kRowTokens = Vec::kRegisters == 16 ? 3 : 5;

template <WeightFormat kFormat>
Vec::F load_weights(const uint8_t* row, int64_t k) {
  if constexpr (kFormat == WeightFormat::kF8) return Vec::from_e4m3(row + k);
  if constexpr (kFormat == WeightFormat::kBF16) return Vec::from_bf16(row + 2 * k);
  if constexpr (kFormat == WeightFormat::kF16) return Vec::from_fp16(row + 2 * k);
  return Vec::load(reinterpret_cast<const float*>(row + 4 * k));
}

constexpr int64_t kStep = 16;  // that k is a multiple of

// Four rows lie one behind the other, so that the rows to come start behind them: what a step along
// k takes of four rows is asked for as much further on. The processor's own prefetching alone
// reaches half the rate.
template <WeightFormat kFormat>
void prefetch(const uint8_t* rows, int64_t k) {
  constexpr int64_t kAhead = 8192;
  constexpr int64_t kBytes = kFormat == WeightFormat::kF8    ? 1
                             : kFormat == WeightFormat::kF32 ? 4
                                                             : 2;
  const char* const p = reinterpret_cast<const char*>(rows) + k * kRowBlockRows * kBytes + kAhead;
  NIBBLE_UNROLL
  for (int64_t i = 0; i < kStep * kRowBlockRows * kBytes; i += 64) _mm_prefetch(p + i, _MM_HINT_T0);
}

template <WeightFormat kFormat, int kTokens>
void multiply_rows(const RowBlock& block) {
  const uint8_t* b[kRowBlockRows];
  NIBBLE_UNROLL
  for (int r = 0; r < kRowBlockRows; ++r) {
    b[r] = block.b + (r < block.rows ? r : block.rows - 1) * block.b_stride;
  }
  Vec::F acc[kTokens][kRowBlockRows] = {};
  for (int64_t i = 0; i < block.k; i += kStep) {
    prefetch<kFormat>(block.b, i);
    NIBBLE_UNROLL
    for (int64_t k = i; k < i + kStep; k += Vec::kWidth) {
      Vec::F x[kTokens];
      NIBBLE_UNROLL
      for (int t = 0; t < kTokens; ++t) x[t] = Vec::load(block.a + t * block.a_stride + k);
      NIBBLE_UNROLL
      for (int r = 0; r < kRowBlockRows; ++r) {
        const Vec::F w = load_weights<kFormat>(b[r], k);
        NIBBLE_UNROLL
        for (int t = 0; t < kTokens; ++t) acc[t][r] = Vec::fma(w, x[t], acc[t][r]);
      }
    }
  }
  NIBBLE_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    _mm_storeu_ps(block.out + t * kRowBlockRows,
                  Vec::sum4(acc[t][0], acc[t][1], acc[t][2], acc[t][3]));
  }
}

template <WeightFormat kFormat, int kTokens = kRowTokens>
void multiply_rows_of(const RowBlock& block) {
  if constexpr (kTokens > 1) {
    if (block.tokens < kTokens) return multiply_rows_of<kFormat, kTokens - 1>(block);
  }
  multiply_rows<kFormat, kTokens>(block);
}

void multiply_any_rows(const RowBlock& block) {
  switch (block.format) {
    case WeightFormat::kF8:
      return multiply_rows_of<WeightFormat::kF8>(block);
    case WeightFormat::kBF16:
      return multiply_rows_of<WeightFormat::kBF16>(block);
    case WeightFormat::kF16:
      return multiply_rows_of<WeightFormat::kF16>(block);
    default:
      return multiply_rows_of<WeightFormat::kF32>(block);
  }
}

}  // namespace
}  // namespace nibble::cpu
