// Round-to-nearest quantization at the speed of a copy.
//
// A warp takes 512 columns of a row: a lane holds 16 elements, reads 32 bytes of bf16 and writes 8
// bytes of codes. A CTA's four warps take the four rows whose scales lie side by side (128x4: rows
// j, j + 32, j + 64, j + 96; 8x4: four adjacent ones), so that through shared memory a 4-column
// group of scales leaves as one 16-byte store. Longer per-thread work and bulk copies
// (cp.async.bulk) into shared memory lost on H200, by 1.3 to 1.5 times.
#include <algorithm>

#include "base/launch.h"
#include "formats/scale_layout.h"
#include "kernels/cuda/quantize.cuh"
#include "kernels/cuda/quantize_launch.h"

namespace nibble::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kUnit = 16;              // elements of a lane
constexpr int kUnitCodes = kUnit / 2;  // bytes
constexpr uint32_t kMaxGridY = 65535;

struct Shape {
  uint32_t m;
  uint32_t units;  // of a row
  uint32_t cols;   // scales of a row
  uint32_t padded_cols;
  uint32_t padded_rows;
  bool rows_apart;  // 128x4
  bool staged;      // not kLinear
};

// scale_offset with the layout known to the compiler: a tile's rows are then a shift, not a
// division of 64-bit numbers by a variable.
__device__ __forceinline__ int64_t offset_of_scale(ScaleLayout layout, uint32_t row, uint32_t col,
                                                   uint32_t cols) {
  switch (layout) {
    case ScaleLayout::kSwizzled128x4:
      return scale_offset(ScaleLayout::kSwizzled128x4, row, col, cols);
    case ScaleLayout::kSwizzled8x4:
      return scale_offset(ScaleLayout::kSwizzled8x4, row, col, cols);
    default:
      return scale_offset(ScaleLayout::kLinear, row, col, cols);
  }
}

// CTAs on an SM at least: the register cap that keeps enough loads in flight. On Blackwell
// (compiled only) CUDA 13.0's ptxas spills up to 8 bytes at 64 registers, and an SM of sm_12x holds
// 12 CTAs.
constexpr int ctas_on_sm(int ctas) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
  return ctas == 8 ? 7 : ctas < 12 ? ctas : 12;
#else
  return ctas;
#endif
}

// kDirect: one row, scales straight to global memory, their address ready before the data: the
// least latency. It costs registers that the others, which keep more loads in flight, have no room
// for.
template <WeightFormat kFormat, DType kType, int kRows, int kMinCtas, bool kDirect>
__global__ void __launch_bounds__(32 * kWarps, ctas_on_sm(kMinCtas))
    quantize_kernel(const QuantizeParams p, const Shape s) {
  constexpr bool kMx = kFormat == WeightFormat::kMxfp4;
  constexpr int kLanesPerBlock = kMx ? 2 : 1;
  constexpr int kGroups = 32 / kLanesPerBlock / 4;  // 4-column groups of scales in a warp
  __shared__ alignas(16) uint8_t staging[kGroups * kRows * 16];

  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const uint32_t unit = blockIdx.x * 32 + lane;
  const uint32_t quad = (blockIdx.z * gridDim.y + blockIdx.y) * kRows;
  const uint32_t row =
      s.rows_apart ? quad / 32 * 128 + quad % 32 + warp * 32 : quad * kWarps + warp;
  const uint32_t row_step = s.rows_apart ? 1 : kWarps;
  const bool in_row = unit < s.units;
  const uint8_t* src =
      p.src + row * p.src_row_bytes + static_cast<int64_t>(unit) * Elements16<kType>::kBytes;
  uint8_t* codes = p.codes + (static_cast<int64_t>(row) * s.units + unit) * kUnitCodes;

  const auto valid = [&](int i) { return in_row && row + i * row_step < s.m; };
  const uint32_t col = unit / kLanesPerBlock, local_col = lane / kLanesPerBlock;
  uint8_t* direct = nullptr;  // kDirect: where the scale goes, if anywhere
  const auto put = [&](int i, const QuantizedUnit& q) {
    if (valid(i)) {
      *reinterpret_cast<uint2*>(codes + static_cast<int64_t>(i * row_step) * s.units * kUnitCodes) =
          q.codes;
    }
    const auto scale = static_cast<uint8_t>(valid(i) ? q.scale : 0);
    if constexpr (kDirect) {
      if (direct != nullptr) *direct = scale;
    } else if (unit % kLanesPerBlock != 0) {
      return;
    } else if (!s.staged) {
      if (valid(i)) p.scales[static_cast<int64_t>(row + i * row_step) * s.cols + col] = scale;
    } else {
      staging[(local_col / 4 * kRows + i) * 16 + warp * 4 + local_col % 4] = scale;
    }
  };

  pdl_wait();
  Elements16<kType> x[kRows] = {};
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    if (valid(i)) x[i].load(src + i * row_step * p.src_row_bytes);
  }
  if constexpr (kDirect) {
    if (unit % kLanesPerBlock == 0 && col < s.padded_cols && row < s.padded_rows) {
      direct = p.scales + offset_of_scale(p.layout, row, col, s.cols);
    }
  }
  const bool given = kMx || p.decode_scale == nullptr;
  const float encode_scale = given ? p.encode_scale : usual_quotient(1.0f, *p.decode_scale);
  pdl_trigger();
  const bool usual = kMx || (encode_scale >= kMinUsualScale && encode_scale <= kMaxUsualScale);

  uint32_t rare = 0;  // rows, as bits
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const auto q = quantize_unit<kFormat, kType>(x[i], valid(i), encode_scale, p.rule);
    put(i, q);
    rare |= static_cast<uint32_t>(q.rare || (!usual && valid(i))) << i;
  }
  if (rare) {
    const float exact_scale = given ? p.encode_scale : 1.0f / *p.decode_scale;
    const int in_block = static_cast<int>(unit % kLanesPerBlock);
#pragma unroll 1
    for (int i = 0; i < kRows; ++i) {
      if (rare >> i & 1) {
        put(i, quantize_rare<kFormat, kType>(
                   src + i * row_step * p.src_row_bytes - in_block * Elements16<kType>::kBytes,
                   in_block, exact_scale, p.rule));
      }
    }
  }
  if (kDirect || !s.staged) return;
  __syncthreads();
  const uint32_t group = threadIdx.x / kRows, in_group = threadIdx.x % kRows;
  const uint32_t first_col = (blockIdx.x * kGroups + group) * 4;
  const uint32_t first_row =
      s.rows_apart ? quad / 32 * 128 + quad % 32 + in_group : (quad + in_group) * kWarps;
  if (group < kGroups && first_col < s.padded_cols && first_row < s.padded_rows) {
    *reinterpret_cast<uint4*>(p.scales + offset_of_scale(p.layout, first_row, first_col, s.cols)) =
        reinterpret_cast<const uint4*>(staging)[threadIdx.x];
  }
}

template <WeightFormat kFormat, DType kType, int kRows, int kMinCtas, bool kDirect = false>
void launch_rows(const QuantizeParams& p, nibble::Stream stream) {
  const int64_t tile = scale_tile_rows(p.layout);
  const int64_t padded_rows = (p.m + tile - 1) / tile * tile;
  const int64_t cols = p.k / block_size(p.format);
  const bool rows_apart = p.layout == ScaleLayout::kSwizzled128x4;
  const Shape s = {
      static_cast<uint32_t>(p.m),         static_cast<uint32_t>(p.k / kUnit),
      static_cast<uint32_t>(cols),        static_cast<uint32_t>(padded_scale_cols(p.layout, cols)),
      static_cast<uint32_t>(padded_rows), rows_apart,
      p.layout != ScaleLayout::kLinear};
  // Columns of padding may need a chunk of their own.
  const int64_t lanes = std::max<int64_t>(
      s.units, static_cast<int64_t>(s.padded_cols) * (block_size(p.format) / kUnit));
  const int64_t quads = (padded_rows + kWarps * kRows - 1) / (kWarps * kRows);
  const auto y = static_cast<uint32_t>(std::min<int64_t>(quads, kMaxGridY));
  const dim3 grid(static_cast<uint32_t>((lanes + 31) / 32), y,
                  static_cast<uint32_t>((quads + y - 1) / y));
  launch({.grid = grid, .block = 32 * kWarps, .pdl = stream.pdl, .stream = stream}, "quantize",
         quantize_kernel<kFormat, kType, kRows, kMinCtas, kDirect>, p, s);
}

template <WeightFormat kFormat, DType kType>
void launch_type(const QuantizeParams& p, int rows, bool staged, nibble::Stream stream) {
  if constexpr (kType == DType::kF32) {
    launch_rows<kFormat, kType, 1, 10>(p, stream);
  } else if constexpr (kFormat == WeightFormat::kMxfp4) {
    if (rows == 1) return launch_rows<kFormat, kType, 1, 12>(p, stream);
    launch_rows<kFormat, kType, 2, 10>(p, stream);
  } else {
    if (!staged) return launch_rows<kFormat, kType, 1, 12, true>(p, stream);
    if (rows == 1) return launch_rows<kFormat, kType, 1, 14>(p, stream);
    if (rows == 2) return launch_rows<kFormat, kType, 2, 12>(p, stream);
    launch_rows<kFormat, kType, 4, 8>(p, stream);
  }
}

template <WeightFormat kFormat>
void launch_format(const QuantizeParams& p, int rows, bool staged, nibble::Stream stream) {
  if (p.type == DType::kF32) return launch_type<kFormat, DType::kF32>(p, rows, staged, stream);
  if (p.type == DType::kF16) return launch_type<kFormat, DType::kF16>(p, rows, staged, stream);
  launch_type<kFormat, DType::kBF16>(p, rows, staged, stream);
}

}  // namespace

void launch_quantize(const QuantizeParams& params, int rows_per_thread, bool staged,
                     nibble::Stream stream) {
  if (params.format == WeightFormat::kMxfp4) {
    launch_format<WeightFormat::kMxfp4>(params, rows_per_thread, staged, stream);
  } else {
    launch_format<WeightFormat::kNvfp4>(params, rows_per_thread, staged, stream);
  }
}

}  // namespace nibble::cuda
