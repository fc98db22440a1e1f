// The kernel behind quantize.cu, quantize_experts.cu and quantize_silu_mul.cu.
//
// A warp takes 512 columns of a row: a lane holds 16 elements, reads 32 bytes of bf16 and writes 8
// bytes of codes. A CTA's four warps take the four rows whose scales lie side by side (128x4: rows
// j, j + 32, j + 64, j + 96; 8x4: four adjacent ones), so that through shared memory a 4-column
// group of scales leaves as one 16-byte store. Longer per-thread work and bulk copies
// (cp.async.bulk) into shared memory lost on H200, by 1.3 to 1.5 times.
#pragma once

#include <algorithm>

#include "base/launch.h"
#include "formats/scale_layout.h"
#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/quantize.cuh"
#include "kernels/cuda/quantize_launch.h"

namespace nibble::cuda {

inline constexpr int kWarps = 4;
inline constexpr int kUnit = 16;              // elements of a lane
inline constexpr int kUnitCodes = kUnit / 2;  // bytes

// Divides numbers below 2^31 by one that the host knows: the high half of a product, shifted.
struct Divisor {
  uint32_t value, magic, shift;

  explicit Divisor(uint32_t d) : value(d), magic(0), shift(0) {
    while ((uint64_t{1} << shift) < d) ++shift;
    // Rounded up, it is off by less than d: too little to carry any quotient up.
    magic = static_cast<uint32_t>(((uint64_t{1} << (31 + shift)) + d - 1) / d);
  }
  __device__ __forceinline__ uint32_t quotient(uint32_t x) const {
    return static_cast<uint32_t>(uint64_t{x} * magic >> 31 >> shift);
  }
};

struct Shape {
  uint32_t m;
  uint32_t units;  // of a row
  uint32_t cols;   // scales of a row
  uint32_t padded_cols;
  uint32_t padded_rows;
  bool rows_apart;  // 128x4
  bool staged;      // not kLinear
  Divisor chunks;   // of 32 units in a row, padding included
};

// A type, because nvcc does not take objects as template arguments of kernels. kRows: of a thread.
// kMinCtas: on an SM, the register cap that keeps enough loads in flight.
template <WeightFormat kFormat_, DType kType_, int kRows_, int kMinCtas_>
struct Variant {
  static constexpr WeightFormat kFormat = kFormat_;
  static constexpr DType kType = kType_;
  static constexpr int kRows = kRows_;
  static constexpr int kMinCtas = kMinCtas_;
  static constexpr bool kSiluMul = false;
  static constexpr bool kExperts = false;  // takes params.tiles, or none
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

// An SM of sm_12x holds 12 CTAs.
constexpr int ctas_on_sm(int ctas) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
  return ctas < 12 ? ctas : 12;
#else
  return ctas;
#endif
}

// A lane's sixteen elements: loaded for all of its rows first, made what is quantized afterwards.
template <DType kType, bool kSiluMul>
struct LaneInput {
  static constexpr int kBytes = Elements16<kType>::kBytes;
  Elements16<kType> x;  // or the gates
  Elements16<kType> up;

  __device__ __forceinline__ void load(const uint8_t* p, int64_t up_offset) {
    x.load(p);
    if constexpr (kSiluMul) up.load(p + up_offset);
  }
  __device__ __forceinline__ auto finish(float src_scale) const {
    if constexpr (kType == DType::kF8E4M3) {
      return x.scaled(src_scale);
    } else if constexpr (kSiluMul) {
      return activations_of<kType>(
          [&]<int i>() { return cuda::silu_mul(x.template get<i>(), up.template get<i>()); });
    } else {
      return x;
    }
  }
  // Element i of the block at p, for quantize_rare.
  static __device__ __forceinline__ float value(const uint8_t* p, int64_t up_offset,
                                                float src_scale, int i) {
    const float e = element<kType>(p, i);
    if constexpr (kType == DType::kF8E4M3) return __fmul_rn(e, src_scale);
    if constexpr (!kSiluMul) return e;
    return rounded<kType>(cuda::silu_mul(e, element<kType>(p + up_offset, i)));
  }
};

template <class V>
__global__ void __launch_bounds__(32 * kWarps, ctas_on_sm(V::kMinCtas))
    quantize_kernel(const QuantizeParams p, const Shape s) {
  using Input = LaneInput<V::kType, V::kSiluMul>;
  constexpr bool kMx = V::kFormat == WeightFormat::kMxfp4;
  constexpr int kRows = V::kRows;
  constexpr int kLanesPerBlock = kMx ? 2 : 1;
  constexpr int kGroups = 32 / kLanesPerBlock / 4;  // 4-column groups of scales in a warp
  __shared__ alignas(16) uint8_t staging[kGroups * kRows * 16];

  pdl_wait();
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const uint32_t quads = s.chunks.quotient(blockIdx.x), chunk = blockIdx.x - quads * s.chunks.value;
  const uint32_t unit = chunk * 32 + lane;
  uint32_t quad = quads * kRows;
  ExpertTile tile = {0, 0, s.m, 0};
  uint32_t padded_rows = s.padded_rows;
  if constexpr (V::kExperts) {
    if (p.tiles != nullptr) {
      constexpr uint32_t kQuads = kWorkTileRows / kWarps;
      tile = p.tiles[quad / kQuads];
      quad %= kQuads;
      const auto of_layout = static_cast<uint32_t>(scale_tile_rows(p.layout));
      padded_rows = (tile.rows + of_layout - 1) / of_layout * of_layout;
    }
  }
  const auto row_of = [&](uint32_t q, uint32_t w) {
    return s.rows_apart ? q / 32 * 128 + q % 32 + w * 32 : q * kWarps + w;
  };
  const uint32_t row = row_of(quad, warp);
  const uint32_t row_step = s.rows_apart ? 1 : kWarps;
  const bool in_row = unit < s.units;
  const uint32_t src_row = tile.row + row, scale_row = tile.scale_row + row;
  const uint8_t* src =
      p.src + src_row * p.src_row_bytes + static_cast<int64_t>(unit) * Input::kBytes;
  const int64_t up_offset = static_cast<int64_t>(s.units) * Input::kBytes;
  uint8_t* codes = p.codes + (static_cast<int64_t>(src_row) * s.units + unit) * kUnitCodes;

  const auto valid = [&](int i) { return in_row && row + i * row_step < tile.rows; };
  const uint32_t col = unit / kLanesPerBlock, local_col = lane / kLanesPerBlock;
  const auto put = [&](int i, const QuantizedUnit& q) {
    if (valid(i)) {
      *reinterpret_cast<uint2*>(codes + static_cast<int64_t>(i * row_step) * s.units * kUnitCodes) =
          q.codes;
    }
    const auto scale = static_cast<uint8_t>(valid(i) ? q.scale : 0);
    if (unit % kLanesPerBlock != 0) return;
    if (!s.staged) {
      if (valid(i)) p.scales[static_cast<int64_t>(scale_row + i * row_step) * s.cols + col] = scale;
    } else {
      staging[(local_col / 4 * kRows + i) * 16 + warp * 4 + local_col % 4] = scale;
    }
  };

  Input x[kRows] = {};
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    if (valid(i)) x[i].load(src + i * row_step * p.src_row_bytes, up_offset);
  }
  const bool given = kMx || p.decode_scale == nullptr;
  const float encode_scale =
      given ? p.encode_scale : usual_quotient(1.0f, p.decode_scale[tile.expert]);
  pdl_trigger();
  const bool usual = kMx || (encode_scale >= kMinUsualScale && encode_scale <= kMaxUsualScale);

  uint32_t rare = 0;  // rows, as bits
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const auto q =
        quantize_unit<V::kFormat>(x[i].finish(p.src_scale), valid(i), encode_scale, p.rule);
    put(i, q);
    rare |= static_cast<uint32_t>(q.rare || (!usual && valid(i))) << i;
  }
  if (rare) {
    const float exact_scale = given ? p.encode_scale : 1.0f / p.decode_scale[tile.expert];
    const int in_block = static_cast<int>(unit % kLanesPerBlock);
#pragma unroll 1
    for (int i = 0; i < kRows; ++i) {
      if (rare >> i & 1) {
        const uint8_t* block = src + i * row_step * p.src_row_bytes - in_block * Input::kBytes;
        put(i, quantize_rare<V::kFormat>(
                   [&](int e) { return Input::value(block, up_offset, p.src_scale, e); }, in_block,
                   exact_scale, p.rule));
      }
    }
  }
  if (!s.staged) return;
  __syncthreads();
  const uint32_t group = threadIdx.x / kRows, in_group = threadIdx.x % kRows;
  const uint32_t first_col = (chunk * kGroups + group) * 4;
  const uint32_t first_row = row_of(quad + in_group, 0);
  if (group < kGroups && first_col < s.padded_cols && first_row < padded_rows) {
    *reinterpret_cast<uint4*>(
        p.scales + offset_of_scale(p.layout, tile.scale_row + first_row, first_col, s.cols)) =
        reinterpret_cast<const uint4*>(staging)[threadIdx.x];
  }
}

template <class V>
void launch_variant(const QuantizeParams& p, nibble::Stream stream) {
  const int64_t tile = scale_tile_rows(p.layout);
  const int64_t padded_rows = (p.m + tile - 1) / tile * tile;
  const int64_t cols = p.k / block_size(p.format);
  const bool rows_apart = p.layout == ScaleLayout::kSwizzled128x4;
  const int64_t padded_cols = padded_scale_cols(p.layout, cols);
  // Columns of padding may need a chunk of their own.
  const int64_t lanes =
      std::max<int64_t>(p.k / kUnit, padded_cols * (block_size(p.format) / kUnit));
  const Shape s = {
      static_cast<uint32_t>(p.m),         static_cast<uint32_t>(p.k / kUnit),
      static_cast<uint32_t>(cols),        static_cast<uint32_t>(padded_cols),
      static_cast<uint32_t>(padded_rows), rows_apart,
      p.layout != ScaleLayout::kLinear,   Divisor(static_cast<uint32_t>((lanes + 31) / 32))};
  const int64_t rows = p.tiles ? int64_t{p.num_tiles} * kWorkTileRows : padded_rows;
  const int64_t quads = (rows + kWarps * V::kRows - 1) / (kWarps * V::kRows);
  // One dimension: with one chunk a row, a grid of (1, y) took up to 12 % longer on H200.
  const auto grid = static_cast<uint32_t>(quads * s.chunks.value);
  launch({.grid = grid, .block = 32 * kWarps, .pdl = stream.pdl, .stream = stream}, "quantize",
         quantize_kernel<V>, p, s);
}

}  // namespace nibble::cuda
