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

// What nearly every call is (Staged). Units of kUnit tokens x the warpgroup's 64 rows go through
// shared memory, to leave as rows of 128 bytes: a warp's own 16 rows are 32 bytes of a token, and a
// tile of 128 x 256 took 2.4 us to write instead of 1.4, a GEMM with C or SiLU-mul up to 1.8 times
// as long. Several units between two barriers, and no branch or multiplication for each, take two
// thirds of the time that they took one by one.
//
// C comes the other way: a thread copies what it will write, its lanes' elements are added before
// the one rounding. With SiLU-mul a lane's rows g are gate and its rows g + 8 up, and a row of D
// half as long.
template <int kUnit, OutputType kType>
struct GroupUnits {
  using Piece = std::conditional_t<kUnit == 16, uint4, uint2>;  // that a thread writes of a unit
  static constexpr int kBytes = kUnit * kGroupRows * 2;
  static constexpr int kPiece = kUnit / 2;  // its elements

  uint32_t units, lane, warp;  // the warpgroup's shared memory; of its four warps
  uint32_t get_at;             // of the thread's piece, in the first unit
  int at, column;              // where that goes: token of a unit, column of D
  int tokens;  // of the tile's from the piece's on, 0 where its rows are none of D's

  // `thread` is the warpgroup's, `row` the first of its tile, which has `tile_tokens` of D.
  __device__ __forceinline__ GroupUnits(const WgmmaParams& p, uint32_t of_group, int thread,
                                        int tile_tokens, int row)
      : units(of_group), lane(thread % 32), warp(thread / 32), at(thread * kPiece / kGroupRows) {
    const int piece = thread * kPiece % kGroupRows;
    get_at = units + eighth_at(at, piece / 8) + piece % 8 * 2;
    const bool silu_mul = p.out.silu_mul, none = silu_mul && piece >= kGroupRows / 2;
    column = (silu_mul ? row / 2 : row) + piece;
    tokens = column < p.out.columns && !none ? tile_tokens - at : 0;
  }

  // Rows of 128 bytes, a token each, their eighths swapped so that banks do not meet.
  static __device__ __forceinline__ uint32_t eighth_at(int at, int eighth) {
    return at * 128 + (eighth ^ at % 8) * 16;
  }
  // Where the lane's row of the warp's matrices is: eight tokens x eight columns of D, each. With
  // SiLU-mul there are half as many.
  __device__ __forceinline__ uint32_t matrix_at(bool silu_mul) const {
    if (silu_mul) return units + eighth_at(lane % kUnit, warp);
    return units + eighth_at(lane / 16 * 8 % kUnit + lane % 8, warp * 2 + lane / 8 % 2);
  }

  // A thread's piece of each unit in memory.
  struct Places {
    uint16_t* at;  // of the unit that is the tile's first
    int64_t unit_step;
    int tokens;

    // fn<index>(where, whether it is there) for kCount of the tile's units: first, first + step...
    template <int kCount, class Fn>
    __device__ __forceinline__ void each(int first, int step, const Fn& fn) const {
      uint16_t* to = at + first * unit_step;
      int left = tokens - first * kUnit;
      cuda::for_each<kCount>([&]<int i>() {
        fn.template operator()<i>(to, left > 0);
        to += step * unit_step;
        left -= step * kUnit;
      });
    }
  };
  // `token` is the tile's first, the pointer D or C.
  __device__ __forceinline__ Places places(const void* d, int64_t stride, int token) const {
    auto* const first = static_cast<uint16_t*>(const_cast<void*>(d));
    return {first + (token + at) * stride + column, stride * kUnit, tokens};
  }

  // The lane's kUnit / 2 sums, into the memory of unit `staged`.
  template <Staged kAs>
  __device__ __forceinline__ void put(int staged, uint32_t matrix, const Factors& by,
                                      const float* sum) const {
    matrix += staged * kBytes;
    const auto y = [&](int i) { return fmaf(sum[i], by.alpha[i / 2 % 2], by.bias[i / 2 % 2]); };
    if constexpr (kAs == Staged::kSiluMul) {
      uint32_t pairs[kUnit / 8];
#pragma unroll
      for (int i = 0; i < kUnit / 8; ++i) {
        const float even = cuda::silu_mul(y(4 * i), y(4 * i + 2));
        pairs[i] = pack_pair(kType, even, cuda::silu_mul(y(4 * i + 1), y(4 * i + 3)));
      }
      cuda::store_matrices_transposed(matrix, pairs);
    } else {
      uint32_t pairs[kUnit / 4];
      if (kAs == Staged::kAddC) cuda::load_matrices_transposed(matrix, pairs);
#pragma unroll
      for (int i = 0; i < kUnit / 4; ++i) {
        float even = y(2 * i), odd = y(2 * i + 1);
        if (kAs == Staged::kAddC) {
          const float2 c = unpack_pair(kType, pairs[i]);
          even += c.x;
          odd += c.y;
        }
        pairs[i] = pack_pair(kType, even, odd);
      }
      cuda::store_matrices_transposed(matrix, pairs);
    }
  }

  // A thread's pieces of C into the memory of kCount units, as they will be read.
  template <int kCount>
  __device__ __forceinline__ void put_pieces(const Piece* pieces) const {
    cuda::for_each<kCount>([&]<int i>() { cuda::store_shared(get_at + i * kBytes, pieces[i]); });
  }
  template <int kCount>
  __device__ __forceinline__ void copy(const Places& c, int first, int step) const {
    Piece pieces[kCount] = {};
    c.template each<kCount>(first, step, [&]<int i>(const uint16_t* from, bool there) {
      cuda::load_if(there, from, pieces[i]);
    });
    put_pieces<kCount>(pieces);
  }

  // All that is staged to D.
  template <int kCount>
  __device__ __forceinline__ void write(const Places& d, int first, int step) const {
    Piece staged[kCount];
    cuda::for_each<kCount>([&]<int i>() { cuda::load_shared(get_at + i * kBytes, staged[i]); });
    d.template each<kCount>(first, step, [&]<int i>(uint16_t* to, bool there) {
      cuda::store_if(there, to, staged[i]);
    });
  }

  // A tile that is not shared, kStaged units at a time. C is read some units ahead.
  template <Staged kAs, int kUnits, int kStaged>
  __device__ __forceinline__ void write_tile(const WgmmaParams& p, const Places& d, int token,
                                             int barrier, const Factors& by,
                                             const float* sum) const {
    constexpr bool kAdd = kAs == Staged::kAddC;
    constexpr int kAhead = kStaged == 1 ? 4 : kStaged;  // one by itself is written too soon
    const Places c = kAdd ? places(p.out.c, p.out.c_stride, token) : d;
    const uint32_t matrix = matrix_at(kAs == Staged::kSiluMul);
    Piece ahead[kAhead] = {};  // unit u's is ahead[u % kAhead]
    const auto read = [&]<int from, int count>() {
      constexpr int kCount = kUnits - from < count ? kUnits - from : count;
      if constexpr (kAdd && kCount > 0) {
        c.template each<kCount>(from, 1, [&]<int i>(const uint16_t* at_unit, bool there) {
          cuda::load_if(there, at_unit, ahead[(from + i) % kAhead]);
        });
      }
    };
    read.template operator()<0, kAhead>();
    cuda::for_each<(kUnits + kStaged - 1) / kStaged>([&]<int batch>() {
      constexpr int kFrom = batch * kStaged;
      constexpr int kCount = kUnits - kFrom < kStaged ? kUnits - kFrom : kStaged;
      if constexpr (kAdd) put_pieces<kCount>(ahead + kFrom % kAhead);
      read.template operator()<kFrom + kAhead, kStaged>();
      cuda::barrier_sync(barrier, 128);  // the ones before have been read, C is there
      cuda::for_each<kCount>(
          [&]<int i>() { put<kAs>(i, matrix, by, sum + (kFrom + i) * (kUnit / 2)); });
      cuda::barrier_sync(barrier, 128);
      write<kCount>(d, kFrom, 1);
    });
  }
};

// A warpgroup's part of C into L2, before the loop over k: a tile's end would wait for it.
__device__ __forceinline__ void prefetch_c(const Output& out, int thread, int token, int tokens,
                                           int row) {
  constexpr int kSector = 16, kSectors = kGroupRows / kSector;  // of 32 bytes
  for (int i = thread; i < tokens * kSectors; i += 128) {
    const int column = row + i % kSectors * kSector;
    if (column >= out.columns) continue;
    const auto* c = static_cast<const uint16_t*>(out.c);
    cuda::prefetch_l2(c + (token + i / kSectors) * out.c_stride + column);
  }
}

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
      if (i / 2 % 2 == 0) x[i] = cuda::silu_mul(x[i], x[i + 2]);
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

// A tile's units so.
template <int kUnit, int kUnits>
struct WarpUnits {
  uint32_t memory;  // the warp's
  int lane, token, tile_end, row;
  Factors by;

  __device__ __forceinline__ void write_one(const WgmmaParams& p, int u, const float* sum) const {
    store_warp_unit<kUnit>(p, memory, lane, token + u * kUnit, tile_end, row, by, sum);
  }
  // Units first, first + step, ..., with the sums of units first_sums, first_sums + sums_step, ...
  // As a loop: the code for each of them would be half of a kernel.
  __device__ __forceinline__ void write(const WgmmaParams& p, int first, int step, int first_sums,
                                        int sums_step, const float* sum) const {
#pragma unroll 1
    for (int u = first, from = first_sums; token + u * kUnit < tile_end;
         u += step, from += sums_step) {
      float of_unit[kUnit / 2];
      cuda::for_each<kUnits>([&]<int i>() {
        for (int j = 0; j < kUnit / 2; ++j) {
          of_unit[j] = i == 0 || i == from ? sum[i * (kUnit / 2) + j] : of_unit[j];
        }
      });
      write_one(p, u, of_unit);
    }
  }
};

}  // namespace nibble::sm90
