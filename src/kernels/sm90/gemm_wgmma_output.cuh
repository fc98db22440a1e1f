// How the wgmma GEMM's sums become D.
#pragma once

#include <type_traits>

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/sm90/gemm_wgmma_work.h"
#include "kernels/sm90/output.cuh"

namespace nibble::sm90 {

struct Factors {
  float alpha[2], bias[2];  // of rows g and g + 8
};

// What nearly every call is: bf16 without C, in pieces of 16 bytes. Units of kUnit tokens x the
// warpgroup's 64 rows go through shared memory, to leave as rows of 128 bytes: a warp's own 16 rows
// are 32 bytes of a token, and a tile of 128 x 256 took 2.4 us to write instead of 1.4. Several
// units between two barriers, and no branch or multiplication for each, take two thirds of the time
// that they took one by one.
template <int kUnit>
struct GroupUnits {
  static constexpr int kBytes = kUnit * kGroupRows * 2;
  static constexpr int kPiece = kUnit / 2;  // elements that a thread writes of a unit

  uint32_t put_at, get_at;  // of the lane, in the first unit's shared memory
  uint16_t* d;              // where the thread's piece goes, were the unit the first of the tile's
  int64_t unit_step;        // from there to the next unit's, in elements
  int tokens;               // of the tile's from the piece's on, 0 where its rows are none of D's

  // `units` is the warpgroup's shared memory, `thread` the warpgroup's, `token` and `row` the first
  // of its tile, which has `tile_tokens` of D.
  __device__ __forceinline__ GroupUnits(const WgmmaParams& p, uint32_t units, int thread, int token,
                                        int tile_tokens, int row) {
    const int lane = thread % 32, warp = thread / 32;
    put_at = units + eighth_at(lane / 16 * 8 % kUnit + lane % 8, warp * 2 + lane / 8 % 2);
    const int at = thread * kPiece / kGroupRows, piece = thread * kPiece % kGroupRows;
    get_at = units + eighth_at(at, piece / 8) + piece % 8 * 2;
    d = static_cast<uint16_t*>(p.out.d) + (token + at) * p.out.d_stride + row + piece;
    unit_step = p.out.d_stride * kUnit;
    tokens = row + piece < p.out.columns ? tile_tokens - at : 0;
  }

  // Rows of 128 bytes, a token each, their eighths swapped so that banks do not meet.
  static __device__ __forceinline__ uint32_t eighth_at(int at, int eighth) {
    return at * 128 + (eighth ^ at % 8) * 16;
  }

  // The lane's kUnit / 2 sums, into the memory of unit `staged`.
  __device__ __forceinline__ void put(int staged, const Factors& by, const float* sum) const {
    uint32_t pairs[kUnit / 4];
#pragma unroll
    for (int i = 0; i < kUnit / 4; ++i) {
      const float alpha = by.alpha[i % 2];
      pairs[i] = pack_pair(OutputType::kBF16, sum[2 * i] * alpha, sum[2 * i + 1] * alpha);
    }
    cuda::store_matrices_transposed(put_at + staged * kBytes, pairs);
  }

  // All that is staged to D: the tile's units first, first + step, ...
  template <int kStaged>
  __device__ __forceinline__ void write(int first, int step) const {
    using Piece = std::conditional_t<kUnit == 16, uint4, uint2>;
    Piece pieces[kStaged];
    cuda::for_each<kStaged>([&]<int i>() {
      if constexpr (kUnit == 16) {
        pieces[i] = cuda::load_shared_16(get_at + i * kBytes);
      } else {
        pieces[i] = cuda::load_shared_8(get_at + i * kBytes);
      }
    });
    uint16_t* to = d + first * unit_step;
    int left = tokens - first * kUnit;
    cuda::for_each<kStaged>([&]<int i>() {
      cuda::store_if(left > 0, to, pieces[i]);
      to += step * unit_step;
      left -= step * kUnit;
    });
  }
};

// Everything else: kUnit tokens x sixteen rows of a warp's accumulators; a lane writes eight
// neighbouring rows of one token. C comes in the same way, to be added before the one rounding.
// With SiLU-mul the lane's rows g are gate and its rows g + 8 up: one piece of eight columns
// remains.
template <int kUnit>
__device__ __forceinline__ void store_warp_unit(const WgmmaParams& p, uint32_t unit, int lane,
                                                int token, int tile_end, int row, const Factors& by,
                                                const float* sum) {
  // Addresses worked out for each unit: held for all of them, they spill.
  cuda::compute_now(lane);
  const int g = lane / 4, t = lane % 4, end = min(tile_end, token + kUnit);
  float x[8] = {};
#pragma unroll
  for (int i = 0; i < kUnit / 2; ++i) x[i] = fmaf(sum[i], by.alpha[i / 2 % 2], by.bias[i / 2 % 2]);
  const bool silu_mul = p.out.silu_mul;
  int column = row;
  if (silu_mul) {
    column = row / 2;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (i / 2 % 2 == 0) x[i] = silu(x[i]) * x[i + 2];
    }
  }
  if (p.out.type == OutputType::kF32) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int to = token + i / 4 * 8 + 2 * t + i % 2, at = column + g + i / 2 % 2 * 8;
      if (silu_mul && i / 2 % 2 == 1) continue;
      if (to < end && at < p.out.columns) store_as<float>(p.out, to, at, x[i]);
    }
    return;
  }
  // Both are rows of 32 bytes, a token each, halves swapped in every other four: no bank conflicts.
  const uint32_t piece = unit + lane / 2 * 32 + (lane ^ lane >> 3) % 2 * 16;
  const uint32_t matrix_row =
      unit + (lane / 16 * 8 + lane % 8) * 32 + (lane >> 3 ^ lane >> 2) % 2 * 16;
  token += lane / 2;
  column += lane % 2 * 8;
  const bool whole = p.wide_output && column + 8 <= p.out.columns;
  const bool inside = token < end && column < p.out.columns && !(silu_mul && lane % 2 == 1);
  __syncwarp();  // the unit before has been read
  uint32_t pairs[4];
  if (p.out.c != nullptr) {
    const uint16_t* c = static_cast<const uint16_t*>(p.out.c) + token * p.out.c_stride + column;
    if (inside && whole) {
      cuda::store_shared_16(piece, *reinterpret_cast<const uint4*>(c));
    } else {
#pragma unroll 1
      for (int i = 0; i < 8 && inside && column + i < p.out.columns; ++i)
        cuda::store_shared_u16(piece + 2 * i, c[i]);
    }
    __syncwarp();
    cuda::load_matrices_transposed(matrix_row, pairs);
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 more = unpack_pair(p.out.type, pairs[i]);
      x[2 * i] += more.x;
      x[2 * i + 1] += more.y;
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) pairs[i] = pack_pair(p.out.type, x[2 * i], x[2 * i + 1]);
  cuda::store_matrices_transposed(matrix_row, pairs);
  __syncwarp();
  if (!inside) return;
  uint16_t* d = static_cast<uint16_t*>(p.out.d) + token * p.out.d_stride + column;
  if (!whole) {
#pragma unroll 1
    for (int i = 0; i < 8 && column + i < p.out.columns; ++i)
      d[i] = cuda::load_shared_u16(piece + 2 * i);
    return;
  }
  *reinterpret_cast<uint4*>(d) = cuda::load_shared_16(piece);
}

}  // namespace nibble::sm90
