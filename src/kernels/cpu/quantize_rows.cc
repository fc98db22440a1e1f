#include "kernels/cpu/quantize_rows.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/thread_pool.h"
#include "formats/e4m3.h"
#include "formats/nvfp4.h"
#include "formats/scale_layout.h"

namespace nibble::cpu {
namespace {

// Small enough that chunk and codes stay in the first-level cache.
constexpr int64_t kChunk = 1024;
constexpr int64_t kMaxChunkScales = kChunk / 16;

bool is_float(DType t) { return t == DType::kF32 || t == DType::kF16 || t == DType::kBF16; }

// The matrices of a call, one after the other, as calls of their own.
struct Part {
  MatrixView src;
  float src_scale;
  float* scale_memory;
  uint8_t* codes;
  uint8_t* scales;
};

// Where the scales of `row` from column `col` on go, `step` adjacent ones at a time.
template <class Copy>
void for_each_run(ScaleLayout layout, int64_t row, int64_t col, int64_t count, int64_t cols,
                  Copy copy) {
  const int64_t step = layout == ScaleLayout::kLinear ? count : 4;  // chunks start at tile borders
  for (int64_t i = 0; i < count; i += step) {
    copy(scale_offset(layout, row, col + i, cols), i, std::min(step, count - i));
  }
}

void zero_padding(ScaleLayout layout, int64_t rows, int64_t cols, uint8_t* scales) {
  const int64_t tile = scale_tile_rows(layout);
  const int64_t padded_rows = (rows + tile - 1) / tile * tile;
  const int64_t padded_cols = padded_scale_cols(layout, cols);
  for (int64_t i = 0; i < padded_rows; ++i) {
    for (int64_t j = i < rows ? cols : 0; j < padded_cols; ++j) {
      scales[scale_offset(layout, i, j, cols)] = 0;
    }
  }
}

// Calls fn(row, first element, count) for all chunks of an [m, k] matrix, rows over threads.
template <class Fn>
void for_each_chunk(int64_t m, int64_t k, Stream stream, Fn fn) {
  stream.pool->parallel_for(m, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t j = 0; j < k; j += kChunk) fn(i, j, std::min(kChunk, k - j));
    }
  });
}

const float* widened(const Part& part, const QuantizeLoops& loops, int64_t row, int64_t at,
                     int64_t count, float* buffer) {
  if (part.src.dtype == DType::kF32) return part.src.row<const float>(row) + at;
  if (part.src.dtype == DType::kF8E4M3) {
    const uint8_t* x = part.src.row<const uint8_t>(row) + at;
    for (int64_t i = 0; i < count; ++i) buffer[i] = e4m3_to_float(x[i]) * part.src_scale;
  } else {
    loops.widen(part.src.dtype, part.src.row<const uint16_t>(row) + at, count, buffer);
  }
  return buffer;
}

float amax_of(const Part& part, Stream stream, const QuantizeLoops& loops) {
  std::atomic<float> amax = 0.0f;
  for_each_chunk(part.src.rows, part.src.cols, stream, [&](int64_t i, int64_t j, int64_t count) {
    alignas(64) float buffer[kChunk];
    const float* x = widened(part, loops, i, j, count, buffer);
    float largest = 0.0f;
    for (int64_t b = 0; b < count; b += kNvfp4BlockSize) {
      largest = std::max(largest, block_amax<kNvfp4BlockSize>(x + b));
    }
    float seen = amax;
    while (seen < largest && !amax.compare_exchange_weak(seen, largest)) {
    }
  });
  return amax;
}

void quantize_part(const QuantizeArgs& args, const Part& part, Stream stream,
                   const QuantizeLoops& loops) {
  const QuantizeDesc& d = args.desc;
  const int64_t block = block_size(d.format);
  const int64_t cols = d.k / block;
  float decode_scale = args.global_decode_scale;
  if (d.global == GlobalScale::kComputed) {
    *part.scale_memory = nvfp4_decode_scale(amax_of(part, stream, loops));
  }
  if (d.global != GlobalScale::kValue) decode_scale = *part.scale_memory;
  const float encode_scale = 1.0f / decode_scale;
  for_each_chunk(part.src.rows, d.k, stream, [&](int64_t i, int64_t j, int64_t count) {
    alignas(64) float buffer[kChunk];
    uint8_t scales[kMaxChunkScales];
    const float* x = widened(part, loops, i, j, count, buffer);
    loops.quantize(d, encode_scale, x, count / block, part.codes + (i * d.k + j) / 2, scales);
    for_each_run(d.layout, i, j / block, count / block, cols,
                 [&](int64_t offset, int64_t at, int64_t n) {
                   std::memcpy(part.scales + offset, scales + at, n);
                 });
  });
  zero_padding(d.layout, part.src.rows, cols, part.scales);
}

}  // namespace

void quantize_rows(const QuantizeArgs& args, Stream stream, const QuantizeLoops& loops) {
  const QuantizeDesc& d = args.desc;
  const int64_t cols = padded_scale_cols(d.layout, d.k / block_size(d.format));
  const int64_t row_bytes = args.src.stride * static_cast<int64_t>(size_of(d.src_type));
  float* scale_memory = args.scale_memory;
  for (const RowGroup& g : row_groups(args)) {
    const Part part{{args.src.row<uint8_t>(0) + g.begin * row_bytes, d.src_type, g.end - g.begin,
                     d.k, args.src.stride},
                    args.src_scale,
                    scale_memory,
                    args.codes + g.begin * d.k / 2,
                    args.scales + g.scale_row * cols};
    quantize_part(args, part, stream, loops);
    if (scale_memory != nullptr) ++scale_memory;
  }
}

void dequantize_rows(const DequantizeArgs& args, Stream stream, const DequantizeLoops& loops) {
  const DequantizeDesc& d = args.desc;
  const int64_t block = block_size(d.format);
  const int64_t cols = d.k / block;
  for_each_chunk(d.m, d.k, stream, [&](int64_t i, int64_t j, int64_t count) {
    alignas(64) float buffer[kChunk];
    uint8_t scales[kMaxChunkScales];
    for_each_run(d.layout, i, j / block, count / block, cols,
                 [&](int64_t offset, int64_t at, int64_t n) {
                   std::memcpy(scales + at, args.scales + offset, n);
                 });
    const bool wide = d.dst_type == DType::kF32;
    float* x = wide ? args.dst.row<float>(i) + j : buffer;
    loops.dequantize(d.format, args.global_decode_scale, args.codes + (i * d.k + j) / 2, scales,
                     count / block, x);
    if (!wide) loops.narrow(d.dst_type, x, count, args.dst.row<uint16_t>(i) + j);
  });
}

Support can_quantize(const QuantizeDesc& desc, const DeviceInfo& device) {
  if (device.kind != DeviceKind::kCpu) return Support::no("runs on a CPU only");
  if (!is_float(desc.src_type) && desc.src_type != DType::kF8E4M3) {
    return Support::no("src must be F32, F16, BF16 or F8_E4M3, found {}", to_string(desc.src_type));
  }
  if (desc.input != QuantizeInput::kPlain) {
    return Support::no("a CPU gains nothing by fusing: run silu_mul or rms_norm first");
  }
  return Support::yes();
}

Support can_dequantize(const DequantizeDesc& desc, const DeviceInfo& device) {
  if (device.kind != DeviceKind::kCpu) return Support::no("runs on a CPU only");
  if (!is_float(desc.dst_type)) {
    return Support::no("dst must be F32, F16 or BF16, found {}", to_string(desc.dst_type));
  }
  return Support::yes();
}

}  // namespace nibble::cpu
