// RMSNorm, with what is added before it, and its quantization in one pass over the row.
//
// A CTA takes a row, or of many rows four, one after the other, whose scales lie side by side: the
// next row is on its way while this one is summed and quantized. The last of many rows are taken
// one by one, so that the SMs end together. A thread holds kUnits times sixteen elements.
#include <algorithm>

#include "base/launch.h"
#include "formats/scale_layout.h"
#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/quantize.cuh"
#include "kernels/cuda/quantize_launch.h"

namespace nibble::cuda {
namespace {

constexpr int kMaxThreads = 512;
constexpr uint32_t kQuad = 4;
// From so many CTAs of four rows on these fill the chip (H200: 132 SMs, three or four on each).
constexpr int64_t kManyQuads = 1024;
constexpr int64_t kLastQuads = 256;  // about one for each CTA that is resident
// With a residual, rows longer than kMaxOneUnitCols take two units a thread from so many rows on,
// shorter or fewer ones one: at 65536 rows 5120 to 8192 1.03 to 1.04 times a copy and not 1.04 to
// 1.10, but one row of 8192 3.85 us and not 3.40 (H200).
constexpr int64_t kTwoUnitsRows = 512, kMaxOneUnitCols = 4096;

constexpr int max_threads(bool residual, int units) {
  return residual && units == 2 ? kMaxThreads / 2 : kMaxThreads;
}
// CTAs on an SM that registers are to last for. Three of two units with a residual: at two CTAs and
// 96 registers 1.045 to 1.07 times a copy where this takes 1.038, four at 64 spill. Without a
// residual MXFP4 needs more than the registers of two full CTAs on sm_120.
constexpr int min_ctas(WeightFormat format, DType type, bool residual, int units, bool prefetch) {
  if (!prefetch || type == DType::kF32) return 1;
  if (residual) return units == 2 ? 3 : 2;
  return format == WeightFormat::kNvfp4 ? 2 : 1;
}

struct NormShape {
  uint32_t units;
  uint32_t cols, padded_cols;
  uint32_t padded_rows;
  uint32_t quads;  // CTAs that take four rows, before those that take one
  float one_over_k;
};

// The sum over the CTA, of fp32 terms in an order that only k decides: eight lanes of a warp leave
// each of their sums, and every warp adds all of these, by fours as quantize_norm_quads.cu does
// where it has a sum for each unit.
template <bool kByFours, int kSums>
__device__ __forceinline__ float block_sum(const float (&sums)[kSums], float* partial) {
  const uint32_t lane = threadIdx.x % 32, all = blockDim.x * kSums / 4;
  const uint32_t first = kSums == 1 ? threadIdx.x / 4 : threadIdx.x / 32 * (8 * kSums) + lane / 4;
#pragma unroll
  for (int i = 0; i < kSums; ++i) {
    float x = sums[i];
    x += __shfl_xor_sync(~0u, x, 1);
    x += __shfl_xor_sync(~0u, x, 2);
    if (lane % 4 == 0) partial[first + i * 8] = x;
  }
  __syncthreads();
  float sum = 0.0f;
  if constexpr (kByFours) {
    if (lane * 4 < all) {
      const float4 p = *reinterpret_cast<const float4*>(partial + lane * 4);
      sum = (p.x + p.y) + (p.z + p.w);
    }
  } else {
#pragma unroll 1
    for (uint32_t i = lane * 2; i < all; i += 64) sum += partial[i] + partial[i + 1];
  }
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    sum += __shfl_xor_sync(~0u, sum, distance);
  }
  return sum;
}

// kUnits * 16 elements a thread. kPrefetch: the next row's are loaded while this one is summed.
// kByUnit: a sum of squares for each unit, not one for all of a thread's.
template <WeightFormat kFormat, DType kType, bool kResidual, int kUnits, bool kPrefetch,
          bool kByUnit>
__global__ void __launch_bounds__(max_threads(kResidual, kUnits),
                                  min_ctas(kFormat, kType, kResidual, kUnits, kPrefetch))
    norm_kernel(const QuantizeParams p, const NormParams n, const NormShape s) {
  using Input = Elements16<kType>;
  constexpr bool kMx = kFormat == WeightFormat::kMxfp4;
  constexpr int kLanesPerBlock = kMx ? 2 : 1;
  constexpr bool kByFours = kByUnit && !kResidual;
  // Sums beside each other wait less for each other; with a residual, memory is what is waited for.
  constexpr int kSums = kByUnit ? kUnits : 1, kChains = kResidual ? 1 : kByUnit ? 2 : 4;
  const bool add = kResidual && n.residual != nullptr;
  __shared__ alignas(16) float partial[2][kMaxThreads / 4];
  // Scales of the rows of a quad, as they lie in memory; padding stays zero.
  extern __shared__ uint4 staging[];

  pdl_wait();
  const bool apart = p.layout == ScaleLayout::kSwizzled128x4;
  const uint32_t step = apart ? 32 : 1;
  const bool many = blockIdx.x < s.quads;
  const uint32_t rows = many ? kQuad : 1, single = many ? 0 : blockIdx.x - s.quads;
  const uint32_t quad = many ? blockIdx.x : s.quads + single / kQuad;
  const uint32_t first =
      (apart ? quad / 32 * 128 + quad % 32 : quad * kQuad) + single % kQuad * step;
  const bool staged = many && p.layout != ScaleLayout::kLinear;
  const uint32_t first_unit = threadIdx.x / 32 * (32 * kUnits) + threadIdx.x % 32;
  const auto unit_of = [&](int u) { return first_unit + u * 32; };
  const bool given = kMx || p.decode_scale == nullptr;
  const float encode_scale = given ? p.encode_scale : 1.0f / *p.decode_scale;
  const bool usual = kMx || (encode_scale >= kMinUsualScale && encode_scale <= kMaxUsualScale);

  const auto src_of = [&](uint32_t row, uint32_t unit) {
    return p.src + row * p.src_row_bytes + unit * int64_t{Input::kBytes};
  };
  const auto residual_of = [&](uint32_t row, uint32_t unit) {
    return n.residual + row * n.residual_row_bytes + unit * int64_t{Input::kBytes};
  };
  struct Loaded {
    Input x, residual;
  };
  const auto load = [&](uint32_t i, int u) {
    const uint32_t at = first + i * step, unit = unit_of(u);
    Loaded out = {};
    if (i >= rows || at >= p.m || unit >= s.units) return out;
    out.x.load(src_of(at, unit));
    if (add) out.residual.load(residual_of(at, unit));
    return out;
  };

  Loaded next[kPrefetch ? kUnits : 1];
  if constexpr (kPrefetch) {
#pragma unroll
    for (int u = 0; u < kUnits; ++u) next[u] = load(0, u);
  }
#pragma unroll 1
  for (uint32_t i = 0; i < rows; ++i) {
    const uint32_t at = first + i * step;
    // No CTA has such rows, but the compiler makes 17 instructions a row more without, of 458 with
    // a residual and one unit: 65536 x 8192 took 1.06 times as long.
    if (at >= s.padded_rows) break;
    const bool in_matrix = at < p.m;
    Input h[kUnits];
    float chains[kSums][kChains] = {};
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      const Loaded in = kPrefetch ? next[u] : load(i, u);
      h[u] = in.x;
      if (add) {
        h[u] = sum_of(in.x, in.residual);
        if (in_matrix && unit_of(u) < s.units) h[u].store(residual_of(at, unit_of(u)));
      }
      if constexpr (kPrefetch) next[u] = load(i + 1, u);
      for_each<16>([&]<int j>() {
        const float x = h[u].template get<j>();
        float& chain = chains[kByUnit ? u : 0][j % kChains];
        chain = __fmaf_rn(x, x, chain);
      });
    }
    float sums[kSums];
    for (int of = 0; of < kSums; ++of) {
      const auto& c = chains[of];
      sums[of] = c[0];
      if constexpr (kChains == 2) sums[of] = c[0] + c[1];
      if constexpr (kChains == 4) sums[of] = (c[0] + c[1]) + (c[2] + c[3]);
    }
    // Two places in turn, so that no thread overwrites what another still reads.
    const float total = block_sum<kByFours>(sums, partial[i % 2]);
    float factor;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(factor) : "f"(__fmaf_rn(total, s.one_over_k, n.eps)));
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      const uint32_t unit = unit_of(u);
      const bool valid = in_matrix && unit < s.units;
      Elements16<DType::kF32> weight = {};
      if (unit < s.units) {
        weight.load(reinterpret_cast<const uint8_t*>(n.weight + unit * int64_t{16}));
      }
      const auto y = activations_of<kType>(
          [&]<int j>() { return h[u].template get<j>() * factor * weight.template get<j>(); });
      QuantizedUnit q = quantize_unit<kFormat>(y, valid, encode_scale, p.rule);
      if (q.rare || (!usual && valid)) {
        const uint32_t in_block = unit % kLanesPerBlock;
        const uint8_t* block =
            n.residual != nullptr ? residual_of(at, unit - in_block) : src_of(at, unit - in_block);
        const float* block_weight = n.weight + (unit - in_block) * int64_t{16};
        q = quantize_rare<kFormat>(
            [&](int j) {
              return rounded<kType>(element<kType>(block, j) * factor * block_weight[j]);
            },
            static_cast<int>(in_block), encode_scale, p.rule);
      }
      if (valid) {
        *reinterpret_cast<uint2*>(p.codes + (static_cast<int64_t>(at) * s.units + unit) * 8) =
            q.codes;
      }
      const uint32_t col = unit / kLanesPerBlock;
      if (unit % kLanesPerBlock != 0 || col >= s.padded_cols) continue;
      const auto scale = static_cast<uint8_t>(valid ? q.scale : 0);
      if (staged) {
        reinterpret_cast<uint8_t*>(staging)[col / 4 * 16 + i * 4 + col % 4] = scale;
      } else {
        p.scales[scale_offset(p.layout, at, col, s.cols)] = scale;
      }
    }
  }
  pdl_trigger();
  if (!staged) return;
  __syncthreads();
  for (uint32_t group = threadIdx.x; group < s.padded_cols / 4; group += blockDim.x) {
    *reinterpret_cast<uint4*>(p.scales + scale_offset(p.layout, first, group * 4, s.cols)) =
        staging[group];
  }
}

template <WeightFormat kFormat, DType kType, bool kResidual, int kUnits, bool kPrefetch,
          bool kByUnit = false>
void launch_units(const QuantizeParams& p, const NormParams& n, nibble::Stream stream) {
  const int64_t block = block_size(p.format), cols = p.k / block;
  const int64_t tile = scale_tile_rows(p.layout);
  const int64_t padded_rows = (p.m + tile - 1) / tile * tile;
  const int64_t padded_cols = padded_scale_cols(p.layout, cols);
  const int64_t all = padded_rows / kQuad, quads = all < kManyQuads ? 0 : all - kLastQuads;
  const NormShape s = {.units = static_cast<uint32_t>(p.k / 16),
                       .cols = static_cast<uint32_t>(cols),
                       .padded_cols = static_cast<uint32_t>(padded_cols),
                       .padded_rows = static_cast<uint32_t>(padded_rows),
                       .quads = static_cast<uint32_t>(quads),
                       .one_over_k = 1.0f / static_cast<float>(p.k)};
  const int64_t units = std::max<int64_t>(s.units, padded_cols * (block / 16));
  const int64_t threads = (units + kUnits * 32 - 1) / (kUnits * 32) * 32;
  launch({.grid = static_cast<uint32_t>(padded_rows - quads * (kQuad - 1)),
          .block = static_cast<uint32_t>(threads),
          .shared_bytes = quads > 0 ? static_cast<size_t>(padded_cols) * kQuad : 0,
          .pdl = stream.pdl,
          .stream = stream},
         "quantize_rms_norm", norm_kernel<kFormat, kType, kResidual, kUnits, kPrefetch, kByUnit>, p,
         n, s);
}

template <WeightFormat kFormat, DType kType>
void launch_type(const QuantizeParams& p, const NormParams& n, nibble::Stream stream) {
  const int64_t threads = (p.k + 15) / 16;
  if (n.residual == nullptr && threads <= 2 * kMaxThreads) {
    if constexpr (kType != DType::kF32) {
      if (norm_units(p.k) > 2) {
        return launch_units<kFormat, kType, false, 2, true, true>(p, n, stream);
      }
    }
    return launch_units<kFormat, kType, false, 2, true>(p, n, stream);
  }
  if (threads <= kMaxThreads) {
    if constexpr (kType != DType::kF32) {
      if (p.k > kMaxOneUnitCols && p.m >= kTwoUnitsRows) {
        return launch_units<kFormat, kType, true, 2, true, true>(p, n, stream);
      }
    }
    return launch_units<kFormat, kType, true, 1, true>(p, n, stream);
  }
  launch_units<kFormat, kType, true, kMaxNormCols / (kMaxThreads * 16), false>(p, n, stream);
}

template <WeightFormat kFormat>
void launch_format(const QuantizeParams& p, const NormParams& n, nibble::Stream stream) {
  if (p.type == DType::kF32) return launch_type<kFormat, DType::kF32>(p, n, stream);
  if (p.type == DType::kF16) return launch_type<kFormat, DType::kF16>(p, n, stream);
  launch_type<kFormat, DType::kBF16>(p, n, stream);
}

}  // namespace

void launch_quantize_rms_norm(const QuantizeParams& params, const NormParams& norm,
                              nibble::Stream stream) {
  if (launch_quantize_norm_quads(params, norm, stream)) return;
  if (params.format == WeightFormat::kMxfp4) {
    launch_format<WeightFormat::kMxfp4>(params, norm, stream);
  } else {
    launch_format<WeightFormat::kNvfp4>(params, norm, stream);
  }
}

}  // namespace nibble::cuda
