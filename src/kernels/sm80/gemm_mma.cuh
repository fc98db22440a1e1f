// The GEMM of chips that have neither wgmma nor clusters of blocks: mma.sync and cp.async, as sm_80
// and everything since have them. It reads the same blocks of weights as the sm_90 kernels.
//
// A block takes a tile of tokens and rows. Its warps stand side by side over the rows (warps_n) and
// over k (warps_k: steps of 128 in turns), so that few rows or few tokens still fill the chip. A
// stage of the ring holds the activations of warps_k steps, which all warps share, and each warp's
// own weights. At the end the sums of the warps along k meet in shared memory, are added in order
// and leave by rows.
#pragma once

#include "kernels/cuda/async_copy.cuh"
#include "kernels/sm80/gemm_mma.h"
#include "kernels/sm90/output.cuh"
#include "kernels/sm90/widen.cuh"

namespace nibble::sm80 {

inline constexpr int kPad = 16;  // bytes behind each row of activations, against bank conflicts
inline constexpr int kMaxThreads = 256;

// Where things lie in a block's shared memory, in bytes. The sums take the ring's place.
struct MmaShared {
  int token_stride, weights, stage, sum_stride, bytes;

  __host__ __device__ constexpr MmaShared(int tokens, int row_tiles, int stages, int warps_n,
                                          int warps_k) {
    token_stride = warps_k * sm90::kBlockK * 2 + kPad;
    weights = tokens * token_stride;  // a multiple of 128: tokens are one of 8
    stage = weights + warps_n * warps_k * row_tiles * sm90::kBlockBytes;
    sum_stride = warps_n * row_tiles * sm90::kBlockRows + 4;  // floats from token to token
    const int sums = warps_k * tokens * sum_stride * 4;
    bytes = stages * stage > sums ? stages * stage : sums;
  }
};

template <sm90::Wide kWide, int kTokenTiles, int kRowTiles, int kStages>
__global__ void __launch_bounds__(kMaxThreads, 1) mma_gemm(const MmaParams p) {
  using namespace nibble::cuda;
  using namespace nibble::sm90;
  extern __shared__ __align__(128) uint8_t shared[];
  constexpr int kTokens = kTokenTiles * 8;
  const MmaShared at(kTokens, kRowTiles, kStages, p.warps_n, p.warps_k);
  const int threads = p.warps_n * p.warps_k * 32;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int warp_n = warp % p.warps_n, warp_k = warp / p.warps_n;
  const int rows = p.warps_n * kRowTiles * kBlockRows, first_row = blockIdx.y * rows;
  const int64_t first_token = int64_t{blockIdx.x} * kTokens;
  const int tokens = static_cast<int>(min(int64_t{kTokens}, p.m - first_token));
  const uint32_t base = shared_address(shared);
  const int all_k = static_cast<int>(k_blocks(p.k));
  const int steps = (all_k + p.warps_k - 1) / p.warps_k;

  // Rows below n's last are read from what follows (the layout ends with kTailBytes) and not
  // written out. Tokens and k beyond the last arrive as zeros.
  const int64_t k_stride = row_blocks(p.n) * kBlockBytes;
  const uint8_t* const weights = p.weights + warp_k * k_stride +
                                 (first_row / kBlockRows + warp_n * kRowTiles) * kBlockBytes +
                                 lane * 16;
  const uint32_t own_weights = base + at.weights + warp * (kRowTiles * kBlockBytes) + lane * 16;
  const int to_scales = kBlockCodeBytes - lane * 12;
  const auto fetch = [&](int step) {
    const uint32_t stage = step % kStages * at.stage;
    if (step * p.warps_k + warp_k < all_k) {
      const uint8_t* const from = weights + step * p.warps_k * k_stride;
#pragma unroll
      for (int r = 0; r < kRowTiles * kBlockBytes; r += kBlockBytes) {
        cp_async_16(own_weights + stage + r, from + r);
        cp_async_16(own_weights + stage + r + 512, from + r + 512);
        cp_async_4(own_weights + stage + r + to_scales, from + r + to_scales);
      }
    }
    const int chunks = p.warps_k * (kBlockK / 8), k_begin = step * p.warps_k * kBlockK;
    for (int i = threadIdx.x; i < kTokens * chunks; i += threads) {
      const int token = i / chunks, chunk = i - token * chunks, k = k_begin + chunk * 8;
      const bool inside = token < tokens && k < p.k;
      const uint16_t* const from = p.a + (inside ? (first_token + token) * p.a_stride + k : 0);
      cp_async_16(base + stage + token * at.token_stride + chunk * 16, from, inside ? 16 : 0);
    }
  };
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) {
    if (s < steps) fetch(s);
    cp_async_commit();
  }

  // ldmatrix: lane i reads token i % 8, chunk i / 8 of four.
  const uint32_t lane_tokens =
      base + lane % 8 * at.token_stride + warp_k * (kBlockK * 2) + lane / 8 * 16;
  float sum[kRowTiles][kTokenTiles][4] = {};
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    cp_async_wait<kStages - 2>();
    __syncthreads();  // everyone's copies are there, and the stage before has been read
    if (step + kStages - 1 < steps) fetch(step + kStages - 1);
    cp_async_commit();
    if (step * p.warps_k + warp_k >= all_k) continue;
    const uint32_t stage = step % kStages * at.stage;
    uint4 codes[kRowTiles][2], scales[kRowTiles];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      const uint32_t from = own_weights + stage + r * kBlockBytes;
      codes[r][0] = load_shared_16(from);
      codes[r][1] = load_shared_16(from + 512);
      scales[r] = load_shared_16(from + kBlockCodeBytes + g * 16 - lane * 16);
    }
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {  // two steps of k16
      uint32_t a[kRowTiles][8];
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        const uint4& c = codes[r][pair / 2];
        widen_pair<kWide>(pair % 2 ? c.z : c.x, pair % 2 ? c.w : c.y, (&scales[r].x)[pair], a[r]);
      }
#pragma unroll
      for (int i = 0; i < kTokenTiles; ++i) {
        uint32_t b[4];
        load_matrices(lane_tokens + stage + i * 8 * at.token_stride + pair * 64, b);
#pragma unroll
        for (int r = 0; r < kRowTiles; ++r) {
          mma<kWide == Wide::kF16>(sum[r][i], a[r], b[0], b[1]);
          mma<kWide == Wide::kF16>(sum[r][i], a[r] + 4, b[2], b[3]);
        }
      }
    }
  }
  cp_async_wait<0>();
  __syncthreads();

  // [warps_k][tokens][rows]
  float* const sums = reinterpret_cast<float*>(shared);
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
    const int row = (warp_n * kRowTiles + r) * kBlockRows + g;
#pragma unroll
    for (int i = 0; i < kTokenTiles; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int token = i * 8 + 2 * t + j % 2;
        sums[(warp_k * kTokens + token) * at.sum_stride + row + j / 2 * 8] = sum[r][i][j];
      }
    }
  }
  __syncthreads();
  const float scale = sum_scale(p.out);
  const auto y = [&](int token, int row) {
    float total = 0.0f;
    for (int s = 0; s < p.warps_k; ++s) {
      total += sums[(s * kTokens + token) * at.sum_stride + row];
    }
    const int n_row = first_row + row;
    const float bias = p.out.bias == nullptr ? 0.0f : p.out.bias[logical_row(p.out, n_row)];
    return fmaf(total, p.row_alpha[n_row] * scale, bias);
  };
  for (int i = threadIdx.x; i < tokens * rows; i += threads) {
    const int token = i / rows, row = i - token * rows;
    if (first_row + row >= p.n) continue;
    if (!p.out.silu_mul) {
      store_output(p.out, first_token + token, first_row + row, y(token, row));
    } else if (row % kBlockRows < 8) {
      const int column = (first_row + row) / kBlockRows * 8 + row % 8;
      if (column >= p.out.columns) continue;
      store_output(p.out, first_token + token, column, silu(y(token, row)) * y(token, row + 8));
    }
  }
}

}  // namespace nibble::sm80
