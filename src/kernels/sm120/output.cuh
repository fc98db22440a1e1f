// From sums to D: scales, bias, SiLU-mul, C, every type, NVFP4 among them.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "formats/nvfp4.h"
#include "formats/scale_layout.h"
#include "kernels/cuda/output.cuh"
#include "kernels/sm120/gemm_params.h"

namespace nibble::sm120 {

using cuda::silu;
using cuda::store_as;

// Tokens and rows of one block of threads.
struct Tile {
  int64_t first_token;
  int tokens;
  int first_row;  // in memory
  int rows;       // a multiple of 16, of 32 where D is quantized behind SiLU-mul
};

// Sixteen lanes side by side hold a block of `token`, the lane's own value at `column`.
__device__ __forceinline__ void store_quantized(const Output& out, float encode_scale,
                                                int64_t token, int column, float value) {
  const float x = __bfloat162float(__float2bfloat16_rn(value));
  const int lane = threadIdx.x % 32;
  const uint32_t block = 0xFFFFu << (lane & 16);
  float amax = block_amax<1>(&x);
#pragma unroll
  for (int by = 8; by > 0; by /= 2) amax = fmaxf(amax, __shfl_xor_sync(block, amax, by));
  const uint8_t scale = float_to_e4m3_satfinite(nvfp4_ideal_scale(amax, encode_scale));
  const uint32_t code = float_to_e2m1(x * nvfp4_factor(scale, encode_scale));
  const uint32_t next = __shfl_down_sync(block, code, 1);
  if (lane % 2 == 0) {
    static_cast<uint8_t*>(out.d)[token * out.d_stride + column / 2] =
        static_cast<uint8_t>(code | next << 4);
  }
  if (lane % 16 == 0) {
    const int columns = out.columns / kNvfp4BlockSize;
    out.scales[scale_offset(out.layout, token, column / kNvfp4BlockSize, columns)] = scale;
  }
}

// Scales outside of D that the layout's tiles hold: the tiles at D's edges write them.
__device__ __forceinline__ void zero_padding(const Output& out, const Tile& tile, int64_t m) {
  const int64_t height = scale_tile_rows(out.layout), columns = out.columns / kNvfp4BlockSize;
  const int64_t of_tile = tile.rows / (out.silu_mul ? 2 : 1) / kNvfp4BlockSize;
  const int64_t first = tile.first_row / tile.rows * of_tile;
  const bool last_tokens = tile.first_token + tile.tokens >= m;
  const bool last_columns = first + of_tile >= columns;
  if (!last_tokens && !last_columns) return;
  const int64_t row_end =
      last_tokens ? (m + height - 1) / height * height : tile.first_token + tile.tokens;
  const int64_t column_end =
      last_columns ? padded_scale_cols(out.layout, columns) : first + of_tile;
  const int64_t width = column_end - first;
  const int64_t count = (row_end - tile.first_token) * width;
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
    const int64_t row = tile.first_token + i / width, column = first + i % width;
    if (row < m && column < columns) continue;
    out.scales[scale_offset(out.layout, row, column, columns)] = 0;
  }
}

// sum(token, row) within the tile, by all threads of the block.
template <class Sum>
__device__ __forceinline__ void write_tile(const GemmParams& p, const Tile& tile, const Sum& sum) {
  const Output& out = p.out;
  const float a_scale = p.tokens.scale_memory == nullptr ? p.tokens.scale : *p.tokens.scale_memory;
  const float encode_scale = out.decode_scale == nullptr ? 1.0f : 1.0f / *out.decode_scale;
  const auto y = [&](int token, int row) {
    const int n_row = tile.first_row + row;
    int bias_at = n_row;
    if (out.silu_mul) {
      bias_at = n_row / kBlockRows * 8 + n_row % 8 + (n_row & 8 ? out.columns : 0);
    }
    const float bias = out.bias == nullptr ? 0.0f : out.bias[bias_at];
    return fmaf(sum(token, row), p.row_alpha[n_row] * a_scale, bias);
  };
  const int columns = out.silu_mul ? tile.rows / 2 : tile.rows;
  const int first_column = out.silu_mul ? tile.first_row / 2 : tile.first_row;
  const int tokens = static_cast<int>(min(int64_t{tile.tokens}, p.m - tile.first_token));
  for (int i = threadIdx.x; i < tokens * columns; i += blockDim.x) {
    const int token = i / columns, in_tile = i - token * columns, column = first_column + in_tile;
    if (column >= out.columns) continue;
    float value;
    if (out.silu_mul) {
      const int gate = in_tile / 8 * kBlockRows + in_tile % 8;
      value = silu(y(token, gate)) * y(token, gate + 8);
    } else {
      value = y(token, in_tile);
    }
    const int64_t row = tile.first_token + token;
    switch (out.type) {
      case DType::kF32:
        store_as<float>(out, row, column, value);
        break;
      case DType::kF16:
        store_as<__half>(out, row, column, value);
        break;
      case DType::kU8:
        store_quantized(out, encode_scale, row, column, value);
        break;
      default:
        store_as<__nv_bfloat16>(out, row, column, value);
    }
  }
  if (out.type == DType::kU8) zero_padding(out, tile, p.m);
}

}  // namespace nibble::sm120
