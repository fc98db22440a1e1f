// RMSNorm of many rows and its quantization in one pass, where what is read and written leaves so
// little time that arithmetic decides (quantize_norm.cu has every other case).
//
// A CTA stays and takes the four rows whose scales lie side by side one after the other: a row is
// unpacked once, for its sum and for its quantization, the next one is on its way meanwhile, and
// the scales of four leave behind the barrier of the fifth.
#include <algorithm>
#include <limits>

#include "base/cuda.h"
#include "base/launch.h"
#include "formats/scale_layout.h"
#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/fused_rounding.h"
#include "kernels/cuda/quantize.cuh"
#include "kernels/cuda/quantize_launch.h"

namespace nibble::cuda {
namespace {

constexpr uint32_t kQuad = 4;
constexpr int kMaxWarps = 8;
// An SM has room for sixteen warps with 128 registers a thread: two units of a row and of its
// weights as floats and the next row. Of more units the weights are in shared memory, and there is
// room for twelve warps with four or five; sixteen with four, whose registers do suffice, took 2 %
// longer. (Rows of two units with their weights there and 80 registers, 24 warps on an SM: 5120 and
// 6144 1.11 and 1.09 times a copy, shorter and longer ones up to 12 % slower than now.)
constexpr int warps_on_sm(int units) { return units > 3 ? 12 : 16; }
constexpr int most_warps(int units) { return units == 5 ? 3 : units == 4 ? 4 : kMaxWarps; }
// The least part of the resident CTAs to have four rows: below, single rows spread better. On H200
// as long takes 0.21 (k = 1536), 0.23 (2560), 0.25 (3072), 0.29 (3584), 0.24 (4096), 0.26 (5120),
// 0.36 (7168) and 0.31 (8192); at twice the CTAs, where this was before, single rows took 1.3 times
// as long.
constexpr double kLeastFill = 0.3;
// From so many rounds of all CTAs on four units a thread are faster than two, to whose bits they
// come; fewer rounds end more unevenly. On H200, times of rows in four over those in two: 5.2
// rounds 0.95 to 0.99, 2.6 rounds 1.06 to 1.08 (3584 to 8192). Rows of 2048 gain nothing.
constexpr int64_t kFourUnitsRounds = 4, kFourUnitsCols = 3073;
constexpr int64_t kMaxCols = kMaxWarps * 32 * 2 * 16;
constexpr uint32_t kMaxGroups = kMaxCols / 64;  // of four columns of scales

struct QuadShape {
  uint32_t units, rows, quads;
  uint32_t groups;         // of four columns of scales
  uint32_t quads_of_tile;  // of scales
  uint32_t row_step;       // from a row of a quad to the next, a power of two
  int32_t src_row_bytes;
  float one_over_k;
};

// kFused: as in quantize.cuh; one instruction an element less is 2 to 4 % of the time. kUnits: of
// sixteen elements a thread (norm_units).
template <WeightFormat kFormat, DType kType, bool kFused, int kUnits>
__global__ void __launch_bounds__(32 * most_warps(kUnits), warps_on_sm(kUnits) / most_warps(kUnits))
    quads_kernel(const QuantizeParams p, const NormParams n, const QuadShape s) {
  using Input = Elements16<kType>;
  using Floats = Elements16<DType::kF32>;
  constexpr bool kMx = kFormat == WeightFormat::kMxfp4;
  constexpr bool kShared = kUnits > 2;  // the weights
  // Units of each sum that lanes hand on: four units give the bits of two.
  constexpr int kOfSum = kUnits % 2 == 0 ? 2 : 1, kParts = kUnits / kOfSum;
  constexpr uint32_t kLanesPerBlock = kMx ? 2 : 1;
  constexpr uint32_t kCols = 32 / kLanesPerBlock;  // of scales, of a warp's 32 units
  constexpr int kSums = kMaxCols / (512 * kOfSum) * 8;
  // Two places for sums and for the scales of a group, in turn: none is overwritten while it is
  // still read. (Side by side: an alignment of more than 1024 bytes ptxas does not keep.)
  __shared__ alignas(2 * kSums * 4) float sums[2 * kSums];
  __shared__ alignas(32) uint4 staging[2 * kMaxGroups];  // as in memory
  extern __shared__ uint4 shared_weights[];              // with kShared

  pdl_wait();
  const uint32_t lane = threadIdx.x % 32;
  uint32_t warp = threadIdx.x / 32;
  if constexpr (kUnits == 4) {
    // A row's last warp may have three units, and an SM's warps are its four schedulers' in turn:
    // by where they lie CTAs begin their rows at different warps, so that those are not all one's.
    // 65536 x 3584 took 1.083 times a copy, 1.108 in turns by blockIdx, 1.121 with four units.
    __shared__ uint32_t place;
    if (threadIdx.x == 0) asm volatile("mov.u32 %0, %%warpid;" : "=r"(place));
    __syncthreads();
    warp = (warp + place / 4) % (blockDim.x / 32);
  }
  const uint32_t first_unit = warp * (32 * kUnits) + lane;
  const uint32_t col = first_unit / kLanesPerBlock;
  // Of the row, from this thread's first on; as numbers, since predicates are made anew at each
  // use.
  int units_left = static_cast<int>(s.units - first_unit);
  int cols_left = lane % kLanesPerBlock == 0 ? static_cast<int>(s.groups * 4 - col) : 0;
  compute_now(units_left);
  compute_now(cols_left);
  const bool given = kMx || p.decode_scale == nullptr;
  const float encode_scale = given ? p.encode_scale : 1.0f / *p.decode_scale;
  const bool usual = kMx || (encode_scale >= kMinUsualScale && encode_scale <= kMaxUsualScale);

  // The CTAs sweep memory together, as blocks of a large grid do: with a stretch of quads for each,
  // hundreds of places were read and written at once, and 65536 x 8192 took 1.08 times as long.
  const auto first_row = [&](uint32_t quad) {
    const uint32_t in_tile = quad & (s.row_step - 1);
    return (quad - in_tile) * kQuad + in_tile;
  };
  uint32_t quad = blockIdx.x, row = first_row(quad);
  const uint8_t* src = p.src + int64_t{row} * s.src_row_bytes + int64_t{first_unit} * Input::kBytes;

  Input next[kUnits] = {};  // what is not in the matrix keeps what was there
  const auto load = [&]<int kOf>() {
    if (row >= s.rows) return;
#pragma unroll
    for (int u = 0; u < kOf; ++u) {
      if (u * 32 < units_left) next[u].load(src + u * 32 * Input::kBytes);
    }
  };
  load.template operator()<kUnits>();
  const float* first_weight = n.weight + first_unit * int64_t{16};
  // The lane's four pieces of a unit lie 512 bytes apart: no bank conflicts.
  const uint32_t weights_at = shared_address(shared_weights + warp * (128 * kUnits) + lane);
  Floats weights[kShared ? 1 : kUnits];
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
    Floats& to = weights[kShared ? 0 : u];
    to = {};
    if (u * 32 < units_left) {
      to.load(reinterpret_cast<const uint8_t*>(first_weight + u * 32 * 16));
    }
    if constexpr (kShared) {
      for (int i = 0; i < 4; ++i) store_shared_16(weights_at + (u * 4 + i) * 512, to.words[i]);
    }
  }
  for (uint32_t i = threadIdx.x; i < 2 * kSums; i += blockDim.x) sums[i] = 0;
  __syncthreads();

  const auto flush = [&](uint32_t of, uint32_t stage) {
    const uint32_t tile = of / s.quads_of_tile;
    auto* to = reinterpret_cast<uint4*>(p.scales) + int64_t{tile * s.groups} * s.quads_of_tile +
               of % s.quads_of_tile;
    for (uint32_t i = threadIdx.x; i < s.groups; i += blockDim.x) {
      to[i * s.quads_of_tile] = staging[2 * i + stage];
    }
  };
  uint32_t mine = shared_address(sums + (warp * (32 * kParts) + lane) / 4);
  uint32_t all = shared_address(sums + lane * (kSums / 32));
  uint32_t scale_at = shared_address(reinterpret_cast<uint8_t*>(staging) + col / 4 * 32 + col % 4);
  compute_now(mine);
  compute_now(all);
  compute_now(scale_at);
  uint32_t stage = 0, left = kQuad;
  bool first = true;
  // Of the first kOf units of each thread. Warps may take rows in two places of the code, whose
  // barrier is one: it counts warps.
  const auto take_rows = [&]<int kOf>() {
#pragma unroll 1
    while (quad < s.quads) {
      Floats x[kOf];
      float parts[kParts][2 * kOfSum] = {};
#pragma unroll
      for (int u = 0; u < kOf; ++u) {
        x[u] = elements_of<DType::kF32>([&]<int j>() {
          float e = next[u].template get<j>();
          compute_now(e);  // or it is unpacked a second time behind the barrier
          return e;
        });
        // Not by tensor cores: fewer instructions, but the chip's clock falls by a tenth with them.
        for_each<16>([&]<int j>() {
          const float e = x[u].template get<j>();
          float& part = parts[u / kOfSum][j % (2 * kOfSum)];
          part = __fmaf_rn(e, e, part);
        });
      }
      const uint32_t at = row;
      const bool in_matrix = at < s.rows;
      const uint32_t next_row = left == 1 ? first_row(quad + gridDim.x) : row + s.row_step;
      const auto step = static_cast<int32_t>(next_row - row);
      row = next_row;
      src += int64_t{step} * s.src_row_bytes;
      load.template operator()<kOf>();

      // The sum over the CTA, in an order that only k decides. Eight lanes of a warp leave a sum
      // each of every kOfSum units, and every warp adds all of them; zeros for warps that there are
      // not.
      const auto leave = [](uint32_t to, float sum) {
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        store_shared(to, sum);
      };
#pragma unroll
      for (int i = 0; i < kParts; ++i) {
        float of_units = parts[i][0] + parts[i][1];
        if constexpr (kOfSum == 2) of_units += parts[i][2] + parts[i][3];
        leave(mine + i * 32, of_units);
      }
      __syncthreads();
      float sum;
      if constexpr (kOfSum == 1) {
        const float4 four = load_shared_f32x4(all);
        sum = (four.x + four.y) + (four.z + four.w);
      } else {
        const float2 pair = load_shared_f32x2(all);
        sum = pair.x + pair.y;
      }
      mine ^= kSums * 4, all ^= kSums * 4;
#pragma unroll
      for (int distance = 16; distance > 0; distance /= 2) {
        sum += __shfl_xor_sync(~0u, sum, distance);
      }
      if (left == kQuad && !first) flush(quad - gridDim.x, stage ^ 1);
      float factor;
      asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(factor) : "f"(__fmaf_rn(sum, s.one_over_k, n.eps)));
      // One branch for all units: between them it would keep one from waiting beside the other.
      QuantizedUnit q[kOf];
      bool rare = false;
#pragma unroll
      for (int u = 0; u < kOf; ++u) {
        const bool valid = in_matrix && u * 32 < units_left;
        Floats& w = weights[kShared ? 0 : u];
        if constexpr (kShared) {
          for (int i = 0; i < 4; ++i) w.words[i] = load_shared_16(weights_at + (u * 4 + i) * 512);
        }
        const auto y = activations_of<kType>(
            [&]<int j>() { return x[u].template get<j>() * factor * w.template get<j>(); });
        q[u] = quantize_unit<kFormat, kFused>(y, valid, encode_scale, p.rule);
        rare |= q[u].rare || (!usual && valid);
      }
      if (rare) {
        const int in_block = static_cast<int>(lane % kLanesPerBlock);
#pragma unroll
        for (int u = 0; u < kOf; ++u) {
          const bool valid = in_matrix && u * 32 < units_left;
          if (!q[u].rare && (usual || !valid)) continue;
          const int64_t from = int64_t{first_unit} + u * 32 - in_block;
          const uint8_t* block = p.src + int64_t{at} * s.src_row_bytes + from * Input::kBytes;
          q[u] = quantize_rare<kFormat>(
              [&](int j) {
                return rounded<kType>(element<kType>(block, j) * factor * n.weight[from * 16 + j]);
              },
              in_block, encode_scale, p.rule);
        }
      }
      auto* codes = reinterpret_cast<uint2*>(p.codes) + int64_t{at} * s.units + first_unit;
#pragma unroll
      for (int u = 0; u < kOf; ++u) {
        const bool valid = in_matrix && u * 32 < units_left;
        if (valid) codes[u * 32] = q[u].codes;
        if (static_cast<int>(u * kCols) < cols_left) {
          store_shared_u8(scale_at + u * kCols * 8, valid ? q[u].scale : 0);
        }
      }
      scale_at += 4;
      if (--left == 0) {
        left = kQuad;
        first = false;
        quad += gridDim.x;
        stage ^= 1;
        scale_at = (scale_at - 16) ^ 16;
      }
    }
  };
  constexpr int kFewer = kUnits == 4 ? 3 : kUnits;
  const uint32_t end = (warp * kUnits + kFewer) * 32;
  if (kFewer < kUnits && end >= s.units && end >= s.groups * 4 * kLanesPerBlock) {
    take_rows.template operator()<kFewer>();
  } else {
    take_rows.template operator()<kUnits>();
  }
  pdl_trigger();
  __syncthreads();
  flush(quad - gridDim.x, stage ^ 1);
}

int64_t warps_of(const QuantizeParams& p, int thread_units) {
  const int64_t block = block_size(p.format), warp = 32 * thread_units;
  const int64_t units =
      std::max<int64_t>(p.k / 16, padded_scale_cols(p.layout, p.k / block) * (block / 16));
  return (units + warp - 1) / warp;
}

template <WeightFormat kFormat, DType kType, bool kFused, int kUnits>
void launch_type(const QuantizeParams& p, const NormParams& n, int64_t ctas,
                 nibble::Stream stream) {
  const int64_t block = block_size(p.format), tile = scale_tile_rows(p.layout);
  const int64_t groups = padded_scale_cols(p.layout, p.k / block) / 4;
  const int64_t warps = warps_of(p, kUnits);
  const int64_t quads = (p.m + tile - 1) / tile * tile / kQuad;
  const QuadShape s = {.units = static_cast<uint32_t>(p.k / 16),
                       .rows = static_cast<uint32_t>(p.m),
                       .quads = static_cast<uint32_t>(quads),
                       .groups = static_cast<uint32_t>(groups),
                       .quads_of_tile = static_cast<uint32_t>(tile / kQuad),
                       .row_step = p.layout == ScaleLayout::kSwizzled128x4 ? 32u : 1,
                       .src_row_bytes = static_cast<int32_t>(p.src_row_bytes),
                       .one_over_k = 1.0f / static_cast<float>(p.k)};
  launch({.grid = static_cast<uint32_t>(std::min(quads, ctas)),
          .block = static_cast<uint32_t>(warps * 32),
          .shared_bytes = kUnits > 2 ? static_cast<size_t>(warps * kUnits * 32 * 64) : 0,
          .pdl = stream.pdl,
          .stream = stream},
         "quantize_rms_norm", quads_kernel<kFormat, kType, kFused, kUnits>, p, n, s);
}

template <WeightFormat kFormat, bool kFused, int kUnits>
void launch_format(const QuantizeParams& p, const NormParams& n, int64_t ctas,
                   nibble::Stream stream) {
  const auto start = p.type == DType::kBF16 ? launch_type<kFormat, DType::kBF16, kFused, kUnits>
                                            : launch_type<kFormat, DType::kF16, kFused, kUnits>;
  start(p, n, ctas, stream);
}

template <int kUnits>
void launch_units(const QuantizeParams& p, const NormParams& n, int64_t ctas,
                  nibble::Stream stream) {
  if (p.format == WeightFormat::kMxfp4) {
    launch_format<WeightFormat::kMxfp4, false, kUnits>(p, n, ctas, stream);
  } else if (p.decode_scale == nullptr && fused_product_rounds_alike(p.encode_scale)) {
    launch_format<WeightFormat::kNvfp4, true, kUnits>(p, n, ctas, stream);
  } else {
    launch_format<WeightFormat::kNvfp4, false, kUnits>(p, n, ctas, stream);
  }
}

}  // namespace

bool launch_quantize_norm_quads(const QuantizeParams& p, const NormParams& n,
                                nibble::Stream stream) {
  if (p.type == DType::kF32 || n.residual != nullptr || p.layout == ScaleLayout::kLinear ||
      p.k > kMaxCols || p.src_row_bytes > std::numeric_limits<int32_t>::max()) {
    return false;
  }
  const auto ctas_of = [&](int units) {
    return warps_on_sm(units) / warps_of(p, units) * num_sms(stream.index);
  };
  int units = norm_units(p.k);
  if (p.m < kLeastFill * static_cast<double>(kQuad * ctas_of(units))) return false;
  if (units == 2 && p.k >= kFourUnitsCols && p.m >= kFourUnitsRounds * kQuad * ctas_of(4)) {
    units = 4;
  }
  const auto start = units == 5   ? launch_units<5>
                     : units == 4 ? launch_units<4>
                     : units == 3 ? launch_units<3>
                                  : launch_units<2>;
  start(p, n, ctas_of(units), stream);
  return true;
}

}  // namespace nibble::cuda
