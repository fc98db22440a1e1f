#include <algorithm>

#include "base/cuda_check.h"
#include "base/launch.h"
#include "kernels/cuda/quantize.cuh"
#include "kernels/sm90/fp4_activations.h"

namespace nibble::sm90 {
namespace {

using cuda::Elements16;

constexpr int kThreads = 128;
constexpr int64_t kMostBlocks = 132 * 16;
constexpr int kUnit = 16;  // elements, a thread's
constexpr uint32_t kInfBits = 0x7F800000u;

// Unit after unit of [m, k] for each thread, without a division for each of them.
struct Units {
  int64_t m;
  int of_row;
  int64_t step_rows;  // from a thread's unit to its next
  int step_units;

  Units(int64_t rows, int64_t k, unsigned grid)
      : m(rows),
        of_row(static_cast<int>(k / kUnit)),
        step_rows(int64_t{grid} * kThreads / of_row),
        step_units(static_cast<int>(int64_t{grid} * kThreads % of_row)) {}

  // fn(row, unit, whether there is one), by all lanes as long as one of a warp has a unit.
  template <class Fn>
  __device__ __forceinline__ void each(const Fn& fn) const {
    const int64_t first = blockIdx.x * int64_t{kThreads} + threadIdx.x;
    int64_t row = first / of_row;
    int unit = static_cast<int>(first % of_row);
    while (__any_sync(~0u, row < m)) {
      fn(row, unit, row < m);
      row += step_rows;
      unit += step_units;
      if (unit >= of_row) {
        unit -= of_row;
        ++row;
      }
    }
  }
};
unsigned grid_for(const Fp4ActivationParams& p, int64_t most) {
  return static_cast<unsigned>(std::min((p.m * (p.k / kUnit) + kThreads - 1) / kThreads, most));
}

template <DType kType, bool kAligned>
__device__ __forceinline__ Elements16<kType> load_unit(const uint8_t* from) {
  Elements16<kType> x;
  if constexpr (kAligned) {
    x.load(from);
  } else {
    union {
      Elements16<kType> elements;
      uint32_t words[Elements16<kType>::kBytes / 4];
      uint16_t halves[Elements16<kType>::kBytes / 2];
    } raw = {};
#pragma unroll
    for (int i = 0; i < kUnit; ++i) {
      if constexpr (kType == DType::kF32) {
        raw.words[i] = reinterpret_cast<const uint32_t*>(from)[i];
      } else {
        raw.halves[i] = reinterpret_cast<const uint16_t*>(from)[i];
      }
    }
    x = raw.elements;
  }
  return x;
}

template <DType kType>
__device__ __forceinline__ const uint8_t* unit_at(const Fp4ActivationParams& p, int64_t row,
                                                  int unit) {
  return p.src + row * p.src_row_bytes + int64_t{unit} * Elements16<kType>::kBytes;
}

// Each block's largest magnitude, as its bits: NaN apart, they order as magnitudes do.
template <DType kType, bool kAligned>
__global__ void __launch_bounds__(kThreads)
    largest(const Fp4ActivationParams p, const Units units) {
  __shared__ uint32_t of_warps[kThreads / 32];
  uint32_t most = 0;
  units.each([&](int64_t row, int unit, bool there) {
    if (!there) return;
    const uint8_t* from = unit_at<kType>(p, row, unit);
    const uint32_t bits = load_unit<kType, kAligned>(from).amax_bits();
    if (bits <= kInfBits) {
      most = max(most, bits);
    } else {
#pragma unroll 1
      for (int i = 0; i < kUnit; ++i) {
        const uint32_t one = __float_as_uint(fabsf(cuda::element<kType>(from, i)));
        if (one <= kInfBits) most = max(most, one);
      }
    }
  });
  cuda::pdl_trigger();
  most = __reduce_max_sync(~0u, most);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = most;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (const uint32_t other : of_warps) most = max(most, other);
  p.scratch[blockIdx.x] = most;
}

// Codes 2i and 2i + 1 of a word times the block's scale.
__device__ __forceinline__ uint32_t values_of_pair(uint32_t codes, int i, float scale) {
  const auto value = [&](uint32_t code) {  // at 2^-126 a float's bits are e2m1's, subnormals too
    const uint32_t bits = (code & 7) << 22 | (code & 8) << 28;
    return __fmul_rn(__fmul_rn(__uint_as_float(bits), 0x1p126f), scale);
  };
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;"
      : "=r"(pair)
      : "f"(value(codes >> (8 * i + 4))), "f"(value(codes >> (8 * i))));
  return pair;
}

// `parts` of the scratch hold largest magnitudes.
template <WeightFormat kFormat, DType kType, bool kAligned>
__global__ void __launch_bounds__(kThreads)
    quantize_and_widen(const Fp4ActivationParams p, const Units units, int parts) {
  constexpr bool kMx = kFormat == WeightFormat::kMxfp4;
  constexpr int kUnits = kMx ? 2 : 1;  // of a block
  cuda::pdl_wait();
  float decode = kMx ? 1.0f : p.given_scale;
  if (!kMx && decode == 0.0f) {
    uint32_t most = 0;
    for (int i = threadIdx.x % 32; i < parts; i += 32) most = max(most, p.scratch[i]);
    decode = nvfp4_decode_scale(__uint_as_float(__reduce_max_sync(~0u, most)));
  }
  const float encode = 1.0f / decode;
  const bool usual = kMx || (encode >= cuda::kMinUsualScale && encode <= cuda::kMaxUsualScale);
  if (blockIdx.x == 0 && threadIdx.x == 0) *p.scale = decode;
  units.each([&](int64_t row, int unit, bool there) {
    Elements16<kType> x = {};
    const uint8_t* from = unit_at<kType>(p, row, unit);
    if (there) x = load_unit<kType, kAligned>(from);
    auto q = cuda::quantize_unit<kFormat>(x, there, encode, Mxfp4ScaleRule::kCeil);
    if (!there) return;
    if (q.rare || !usual) {
      const int in_block = unit % kUnits;
      const uint8_t* block = from - in_block * Elements16<kType>::kBytes;
      q = cuda::quantize_rare<kFormat>([&](int i) { return cuda::element<kType>(block, i); },
                                       in_block, encode, Mxfp4ScaleRule::kCeil);
    }
    const auto bits = static_cast<uint8_t>(q.scale);
    const float scale = kMx ? ue8m0_to_float(bits) : cuda::fast_e4m3_to_float(bits);
    auto* to = reinterpret_cast<uint4*>(p.values + row * p.k + unit * kUnit);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t codes = half == 0 ? q.codes.x : q.codes.y;
      to[half] = {values_of_pair(codes, 0, scale), values_of_pair(codes, 1, scale),
                  values_of_pair(codes, 2, scale), values_of_pair(codes, 3, scale)};
    }
  });
  cuda::pdl_trigger();
}

// Whether the device has programmatic dependent launch.
bool has_pdl(const Stream& stream) {
  int major = 0;
  NIBBLE_CUDA_CHECK(
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, stream.index));
  return major >= 9;
}

template <DType kType, bool kAligned>
void launch_of(const Fp4ActivationParams& p, Stream stream) {
  const unsigned grid = grid_for(p, kMostBlocks), parts = grid_for(p, kFp4ScratchWords);
  const bool amax = p.format != WeightFormat::kMxfp4 && p.given_scale == 0.0f;
  if (amax) {
    cuda::launch({.grid = parts, .block = kThreads, .stream = stream}, "fp4_activations_amax",
                 largest<kType, kAligned>, p, Units(p.m, p.k, parts));
  }
  const auto kernel = p.format == WeightFormat::kMxfp4
                          ? quantize_and_widen<WeightFormat::kMxfp4, kType, kAligned>
                          : quantize_and_widen<WeightFormat::kNvfp4, kType, kAligned>;
  cuda::launch({.grid = grid, .block = kThreads, .pdl = amax && has_pdl(stream), .stream = stream},
               "fp4_activations", kernel, p, Units(p.m, p.k, grid), static_cast<int>(parts));
}

}  // namespace

void launch_fp4_activations(const Fp4ActivationParams& p, Stream stream) {
  const bool aligned = (reinterpret_cast<uintptr_t>(p.src) | p.src_row_bytes) % 16 == 0;
  const auto choose = [&]<DType kType>() {
    aligned ? launch_of<kType, true>(p, stream) : launch_of<kType, false>(p, stream);
  };
  if (p.type == DType::kF32) {
    choose.operator()<DType::kF32>();
  } else if (p.type == DType::kBF16) {
    choose.operator()<DType::kBF16>();
  } else {
    choose.operator()<DType::kF16>();
  }
}

}  // namespace nibble::sm90
