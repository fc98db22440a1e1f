// The GEMM of chips with block-scaled mma.sync (sm_120, sm_121), for any policy of
// block_scaled_mma.cuh.
//
// Weights are the instruction's 16 rows, tokens its 8 columns: up to 8 tokens nothing is computed
// in vain. A block takes a tile of tokens and rows; its warps stand side by side over the rows
// (warps_n) and over k (warps_k: blocks of 128 in turns), so that few rows or few tokens still fill
// the chip. A stage of the cp.async ring holds the activations of warps_k blocks of k, which all
// warps share, and each warp's own weights. At the end the sums of the warps along k meet in shared
// memory, are added in order and leave by rows. Where k is cut over blocks too, their sums leave
// for the workspace, and a second kernel adds them in order: no atomics, nothing to clear.
#pragma once

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/sm120/block_scaled_mma.cuh"
#include "kernels/sm120/output.cuh"
#include "kernels/sm120/tokens.cuh"

namespace nibble::sm120 {

__device__ __forceinline__ uint32_t load_shared_word(uint32_t from) {
  uint32_t word;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(word) : "r"(from) : "memory");
  return word;
}

template <class Mma, int kTokenTiles, int kStages>
__global__ void __launch_bounds__(kMaxThreads, 1) block_scaled_gemm(const GemmParams p) {
  using namespace nibble::cuda;
  extern __shared__ __align__(128) uint8_t shared[];
  constexpr WeightFormat kFormat = Mma::kFormat;
  constexpr int kTokens = kTokenTiles * 8;
  constexpr int kWords = kScaleWords<kFormat>;
  constexpr bool kCanQuantize = kTokens <= kMostQuantizedTokens;
  const bool resident = kCanQuantize && p.tokens.scales == nullptr;
  const int warps_n = 1 << p.warps_n_log2, warps_k = 1 << p.warps_k_log2;
  const KRange range(p.k, p.split, static_cast<int>(blockIdx.z));
  const GemmShared at({kTokens, kStages, warps_n, warps_k}, resident ? range.end - range.begin : 0);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int warp_n = warp & (warps_n - 1), warp_k = warp >> p.warps_n_log2;
  const Tile tile = {int64_t{blockIdx.x} * kTokens, kTokens,
                     static_cast<int>(blockIdx.y) * warps_n * kBlockRows, warps_n * kBlockRows};
  const uint32_t base = shared_address(shared), ring = base + at.ring;
  const int steps = (range.end - range.begin + warps_k - 1) >> p.warps_k_log2;

  const int row_block = tile.first_row / kBlockRows + warp_n;
  const bool has_rows = row_block < row_blocks(p.n);
  const auto own_block = [&](int step) { return range.begin + (step << p.warps_k_log2) + warp_k; };
  const uint32_t own_weights = ring + at.weights + warp * kBlockBytes;
  const auto fetch_weights = [&](int step) {
    if (!has_rows || own_block(step) >= range.end) return;
    const uint8_t* const from = p.weights + block_offset(row_block, own_block(step), p.n);
    const uint32_t to = own_weights + step % kStages * at.stage;
    cp_async_16(to + lane * 16, from + lane * 16);
    cp_async_16(to + 512 + lane * 16, from + 512 + lane * 16);
    cp_async_4(to + kBlockCodeBytes + lane * 4, from + kBlockCodeBytes + lane * 4);
  };
  const auto fetch_tokens = [&](int step) {
    if (resident) return;
    copy_tokens<kFormat>(p, at, ring + step % kStages * at.stage, kTokens, tile.first_token,
                         range.begin + (step << p.warps_k_log2));
  };
  // Weights are not another kernel's output: they need not wait for the one in front.
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) {
    if (s < steps) fetch_weights(s);
  }
  pdl_wait();
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) {
    if (s < steps) fetch_tokens(s);
    cp_async_commit();
  }
  if constexpr (kCanQuantize) {
    if (resident) quantize_tokens<kFormat>(p, at, shared, kTokens, tile.first_token, range);
  }

  // ldmatrix: lane i reads token i % 8, chunk i / 8 of four. A lane's word of scales is for token g
  // of the first or (t / 2) second of two tiles, step t % 2.
  const uint32_t lane_codes =
      base + lane % 8 * at.token_stride + warp_k * (kBlockK / 2) + lane / 8 * 16;
  const int scale_token = kTokenTiles > 1 ? t / 2 * 8 + g : g;
  const uint32_t lane_scales = base + at.scales + scale_token * at.scale_stride +
                               (warp_k * kWords + (kWords > 1 ? t % 2 : 0)) * 4;
  float sum[kTokenTiles][4] = {};
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    cp_async_wait<kStages - 2>();
    __syncthreads();  // everyone's copies are there, and the stage before has been read
    if (step + kStages - 1 < steps) {
      fetch_weights(step + kStages - 1);
      fetch_tokens(step + kStages - 1);
    }
    cp_async_commit();
    if (!has_rows || own_block(step) >= range.end) continue;
    const uint32_t weights = own_weights + step % kStages * at.stage;
    const uint32_t stage = step % kStages * at.stage;
    const uint32_t codes = lane_codes + (resident ? step * warps_k * (kBlockK / 2) : stage);
    const uint32_t scales = lane_scales + (resident ? step * warps_k * kWords * 4 : stage);
    const uint4 first = load_shared_16(weights + lane * 16);
    const uint4 second = load_shared_16(weights + 512 + lane * 16);
    const uint32_t a[2][4] = {{first.x, first.y, first.z, first.w},
                              {second.x, second.y, second.z, second.w}};
    const uint32_t scales_a = load_shared_word(weights + kBlockCodeBytes + lane * 4);
    uint32_t scales_b = 0;
#pragma unroll
    for (int i = 0; i < kTokenTiles; ++i) {
      if (i % 2 == 0) {
        scales_b = load_shared_word(scales + i * 8 * at.scale_stride);
        if constexpr (kWords == 1) scales_b >>= t % 2 * 16;
      }
      uint32_t b[4];
      load_matrices(codes + i * 8 * at.token_stride, b);
      const uint32_t b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
      if (i % 2 == 0) {
        Mma::template mma<0, 0>(sum[i], a[0], b0, scales_a, scales_b);
        Mma::template mma<1, 1>(sum[i], a[1], b1, scales_a, scales_b);
      } else {
        Mma::template mma<0, 2>(sum[i], a[0], b0, scales_a, scales_b);
        Mma::template mma<1, 3>(sum[i], a[1], b1, scales_a, scales_b);
      }
    }
  }
  pdl_trigger();
  cp_async_wait<0>();
  __syncthreads();

  float* const sums = reinterpret_cast<float*>(shared);  // [warps_k][tokens][rows]
#pragma unroll
  for (int i = 0; i < kTokenTiles; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const SumPlace place = c_place(lane, j);
      sums[(warp_k * kTokens + i * 8 + place.column) * at.sum_stride + warp_n * kBlockRows +
           place.row] = sum[i][j];
    }
  }
  __syncthreads();
  const auto total = [&](int token, int row) {
    float all = 0.0f;
    for (int s = 0; s < warps_k; ++s) all += sums[(s * kTokens + token) * at.sum_stride + row];
    return all;
  };
  if (p.split == 1) return write_tile(p, tile, total);
  const int64_t all_rows = row_blocks(p.n) * kBlockRows;
  const int tokens = static_cast<int>(min(int64_t{kTokens}, p.m - tile.first_token));
  float* const part = p.parts + (blockIdx.z * int64_t{p.m} + tile.first_token) * all_rows;
  for (int i = threadIdx.x; i < tokens * tile.rows; i += blockDim.x) {
    const int token = i / tile.rows, row = i - token * tile.rows;
    if (tile.first_row + row >= all_rows) continue;
    part[token * all_rows + tile.first_row + row] = total(token, row);
  }
}

// Adds the parts that the blocks along k have left.
inline constexpr int kAddTokens = 8, kAddRows = 64;
template <class Mma>  // of each policy's object its own, for its architecture
__global__ void __launch_bounds__(kMaxThreads) add_parts(const GemmParams p) {
  cuda::pdl_wait();
  const Tile tile = {int64_t{blockIdx.x} * kAddTokens, kAddTokens,
                     static_cast<int>(blockIdx.y) * kAddRows, kAddRows};
  const int64_t all_rows = row_blocks(p.n) * kBlockRows;
  write_tile(p, tile, [&](int token, int row) {
    const float* const from =
        p.parts + (tile.first_token + token) * all_rows + tile.first_row + row;
    float all = 0.0f;
    for (int s = 0; s < p.split; ++s) all += from[s * p.m * all_rows];
    return all;
  });
}

}  // namespace nibble::sm120
