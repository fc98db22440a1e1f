// What need not be as fast as a copy: every quantization method on rows of any alignment, and
// dequantization.
#include <algorithm>

#include "base/launch.h"
#include "formats/block_search.h"
#include "formats/float16.h"
#include "formats/scale_layout.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/quantize_launch.h"

namespace nibble::cuda {
namespace {

constexpr int kThreads = 128;

__device__ float load_element(DType type, const uint8_t* row, int64_t i, float e4m3_scale) {
  if (type == DType::kF32) return reinterpret_cast<const float*>(row)[i];
  if (type == DType::kF8E4M3) return e4m3_to_float(row[i]) * e4m3_scale;
  const uint16_t bits = reinterpret_cast<const uint16_t*>(row)[i];
  return type == DType::kBF16 ? bf16_to_float(bits) : fp16_to_float(bits);
}

__device__ void store_element(DType type, uint8_t* row, int64_t i, float value) {
  if (type == DType::kF32) {
    reinterpret_cast<float*>(row)[i] = value;
  } else {
    reinterpret_cast<uint16_t*>(row)[i] =
        type == DType::kBF16 ? float_to_bf16(value) : float_to_fp16(value);
  }
}

// A thread a block of scales, those of the padding included: padded_rows x padded_cols threads.
__global__ void __launch_bounds__(kThreads)
    quantize_any_kernel(const QuantizeParams p, int64_t padded_rows, int64_t padded_cols,
                        int64_t cols, int block) {
  pdl_wait();
  const float encode_scale = p.decode_scale == nullptr ? p.encode_scale : 1.0f / *p.decode_scale;
  const int64_t count = padded_rows * padded_cols;
  for (int64_t at = blockIdx.x * int64_t{kThreads} + threadIdx.x; at < count;
       at += gridDim.x * int64_t{kThreads}) {
    const int64_t row = at / padded_cols, col = at % padded_cols;
    uint8_t scale = 0;
    if (row < p.m && col < cols) {
      float x[kMxfp4BlockSize];
      uint8_t codes[kMxfp4BlockBytes];
      const uint8_t* src = p.src + row * p.src_row_bytes;
      for (int i = 0; i < block; ++i)
        x[i] = load_element(p.type, src, col * block + i, p.src_scale);
      scale = quantize_block(p.format, p.method, p.rule, x, encode_scale, codes);
      uint8_t* out = p.codes + (row * p.k + col * block) / 2;
      for (int i = 0; i < block / 2; ++i) out[i] = codes[i];
    }
    p.scales[scale_offset(p.layout, row, col, cols)] = scale;
  }
  pdl_trigger();
}

// A thread sixteen elements.
__global__ void __launch_bounds__(kThreads)
    dequantize_kernel(const DequantizeParams p, int64_t cols, int units_per_block) {
  pdl_wait();
  const int64_t units = p.k / 16, count = p.m * units;
  for (int64_t at = blockIdx.x * int64_t{kThreads} + threadIdx.x; at < count;
       at += gridDim.x * int64_t{kThreads}) {
    const int64_t row = at / units, unit = at % units;
    const uint8_t scale = p.scales[scale_offset(p.layout, row, unit / units_per_block, cols)];
    uint8_t* dst = p.dst + row * p.dst_row_bytes;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const uint8_t pair = p.codes[at * 8 + i];
      for (int half = 0; half < 2; ++half) {
        const auto code = static_cast<uint8_t>(pair >> (4 * half) & 0xF);
        store_element(p.type, dst, unit * 16 + 2 * i + half,
                      p.format == WeightFormat::kMxfp4
                          ? dequantize_mxfp4(code, scale)
                          : dequantize_nvfp4(code, scale, p.decode_scale));
      }
    }
  }
  pdl_trigger();
}

uint32_t blocks_for(int64_t threads, int64_t most) {
  return static_cast<uint32_t>(std::min((threads + kThreads - 1) / kThreads, most));
}
constexpr int64_t kManyBlocks = 1 << 20;

}  // namespace

void launch_quantize_any(const QuantizeParams& p, nibble::Stream stream) {
  const int64_t block = block_size(p.format), cols = p.k / block;
  const int64_t tile = scale_tile_rows(p.layout);
  const int64_t padded_rows = (p.m + tile - 1) / tile * tile;
  const int64_t padded_cols = padded_scale_cols(p.layout, cols);
  launch({.grid = blocks_for(padded_rows * padded_cols, kManyBlocks),
          .block = kThreads,
          .pdl = stream.pdl,
          .stream = stream},
         "quantize_any", quantize_any_kernel, p, padded_rows, padded_cols, cols,
         static_cast<int>(block));
}

void launch_dequantize(const DequantizeParams& p, nibble::Stream stream) {
  const int64_t block = block_size(p.format);
  launch({.grid = blocks_for(p.m * (p.k / 16), kManyBlocks),
          .block = kThreads,
          .pdl = stream.pdl,
          .stream = stream},
         "dequantize", dequantize_kernel, p, p.k / block, static_cast<int>(block / 16));
}

}  // namespace nibble::cuda
