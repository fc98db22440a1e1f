#include <algorithm>

#include "base/launch.h"
#include "formats/float16.h"
#include "formats/mxfp4.h"
#include "formats/nvfp4.h"
#include "kernels/sm90/fp4_activations.h"

namespace nibble::sm90 {
namespace {

constexpr int kThreads = 128;
constexpr int kAmaxBlocks = kFp4ScratchWords;
constexpr int64_t kMostBlocks = 132 * 16;
constexpr int kUnit = 16;  // elements
constexpr uint32_t kInfBits = 0x7F800000u;
template <DType kType>
constexpr int kElementBytes = static_cast<int>(size_of(kType));

// Sixteen elements, in pieces of 16 bytes where every row is aligned to that.
template <DType kType, bool kAligned>
__device__ __forceinline__ void load_unit(const uint8_t* from, float* x) {
  constexpr int kBytes = kUnit * kElementBytes<kType>;
  union {
    uint4 pieces[kBytes / 16];
    uint32_t words[kBytes / 4];
    uint16_t halves[kBytes / 2];
  } raw;
  if constexpr (kAligned) {
#pragma unroll
    for (int i = 0; i < kBytes / 16; ++i) raw.pieces[i] = reinterpret_cast<const uint4*>(from)[i];
  }
#pragma unroll
  for (int i = 0; i < kUnit; ++i) {
    if constexpr (kType == DType::kF32) {
      if constexpr (!kAligned) raw.words[i] = reinterpret_cast<const uint32_t*>(from)[i];
      x[i] = __uint_as_float(raw.words[i]);
    } else {
      if constexpr (!kAligned) raw.halves[i] = reinterpret_cast<const uint16_t*>(from)[i];
      x[i] = kType == DType::kBF16 ? bf16_to_float(raw.halves[i]) : fp16_to_float(raw.halves[i]);
    }
  }
}

// Each block's largest magnitude, as its bits: NaN apart, they order as magnitudes do.
template <DType kType, bool kAligned>
__global__ void __launch_bounds__(kThreads) largest(const Fp4ActivationParams p) {
  __shared__ uint32_t of_warps[kThreads / 32];
  const int64_t units = p.k / kUnit, count = p.m * units;
  uint32_t most = 0;
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < count;
       i += gridDim.x * int64_t{kThreads}) {
    float x[kUnit];
    load_unit<kType, kAligned>(
        p.src + i / units * p.src_row_bytes + i % units * (kUnit * kElementBytes<kType>), x);
#pragma unroll
    for (int e = 0; e < kUnit; ++e) {
      const uint32_t bits = __float_as_uint(fabsf(x[e]));
      if (bits <= kInfBits) most = max(most, bits);
    }
  }
  most = __reduce_max_sync(~0u, most);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = most;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (const uint32_t other : of_warps) most = max(most, other);
  p.scratch[blockIdx.x] = most;
}

// A thread a block of scales.
template <WeightFormat kFormat, DType kType, bool kAligned>
__global__ void __launch_bounds__(kThreads) quantize_and_widen(const Fp4ActivationParams p) {
  constexpr bool kMx = kFormat == WeightFormat::kMxfp4;
  constexpr int kBlock = kMx ? kMxfp4BlockSize : kNvfp4BlockSize;
  float decode = kMx ? 1.0f : p.given_scale;
  if (!kMx && decode == 0.0f) {
    uint32_t most = 0;
    for (int i = threadIdx.x % 32; i < kAmaxBlocks; i += 32) most = max(most, p.scratch[i]);
    decode = nvfp4_decode_scale(__uint_as_float(__reduce_max_sync(~0u, most)));
  }
  const float encode = 1.0f / decode;
  if (blockIdx.x == 0 && threadIdx.x == 0) *p.scale = decode;
  const int64_t blocks = p.k / kBlock, count = p.m * blocks;
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < count;
       i += gridDim.x * int64_t{kThreads}) {
    const int64_t row = i / blocks, col = i % blocks * kBlock;
    float x[kBlock];
    uint8_t codes[kBlock / 2];
#pragma unroll
    for (int e = 0; e < kBlock; e += kUnit) {
      load_unit<kType, kAligned>(p.src + row * p.src_row_bytes + (col + e) * kElementBytes<kType>,
                                 x + e);
    }
    if constexpr (kMx) {
      const uint8_t scale = quantize_mxfp4_block(x, Mxfp4ScaleRule::kCeil, codes);
      dequantize_mxfp4_block(codes, scale, x);
    } else {
      const uint8_t scale = quantize_nvfp4_block(x, encode, codes);
      dequantize_nvfp4_block(codes, scale, 1.0f, x);
    }
    auto* out = reinterpret_cast<uint4*>(p.values + row * p.k + col);
#pragma unroll
    for (int piece = 0; piece < kBlock / 8; ++piece) {
      uint32_t pairs[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float* two = x + piece * 8 + e * 2;
        pairs[e] = float_to_bf16(two[0]) | uint32_t{float_to_bf16(two[1])} << 16;
      }
      out[piece] = {pairs[0], pairs[1], pairs[2], pairs[3]};
    }
  }
}

template <DType kType, bool kAligned>
void launch_of(const Fp4ActivationParams& p, Stream stream) {
  const auto blocks_for = [&](int64_t unit) {
    return static_cast<unsigned>(
        std::min((p.m * (p.k / unit) + kThreads - 1) / kThreads, kMostBlocks));
  };
  if (p.format == WeightFormat::kMxfp4) {
    cuda::launch({.grid = blocks_for(kMxfp4BlockSize), .block = kThreads, .stream = stream},
                 "fp4_activations", quantize_and_widen<WeightFormat::kMxfp4, kType, kAligned>, p);
    return;
  }
  if (p.given_scale == 0.0f) {
    cuda::launch({.grid = kAmaxBlocks, .block = kThreads, .stream = stream}, "fp4_activations_amax",
                 largest<kType, kAligned>, p);
  }
  cuda::launch({.grid = blocks_for(kNvfp4BlockSize), .block = kThreads, .stream = stream},
               "fp4_activations", quantize_and_widen<WeightFormat::kNvfp4, kType, kAligned>, p);
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
