// The global scales that a call computes itself.
#include <algorithm>

#include "base/launch.h"
#include "formats/nvfp4.h"
#include "kernels/cuda/quantize.cuh"
#include "kernels/cuda/quantize_launch.h"

namespace nibble::cuda {
namespace {

constexpr int kThreads = 256;
constexpr uint32_t kBlocks = 132 * 8;  // as many as the largest chips run at once
constexpr uint32_t kInfBits = 0x7F800000;

// The largest magnitude of sixteen elements as a float's bits, which order as magnitudes do; NaN
// does not count.
template <DType kType>
__device__ uint32_t amax_bits(const uint8_t* p, bool aligned, float e4m3_scale) {
  if (aligned) {
    Elements16<kType> x;
    x.load(p);
    uint32_t bits;
    if constexpr (kType == DType::kF8E4M3) {
      bits = x.scaled(e4m3_scale).amax_bits();
    } else {
      bits = x.amax_bits();
    }
    if (bits <= kInfBits) return bits;
  }
  uint32_t amax = 0;
#pragma unroll 1
  for (int i = 0; i < 16; ++i) {
    float x = element<kType>(p, i);
    if constexpr (kType == DType::kF8E4M3) x *= e4m3_scale;
    const uint32_t bits = float_bits(x) & 0x7FFFFFFFu;
    if (bits <= kInfBits) amax = max(amax, bits);
  }
  return amax;
}

__device__ uint32_t amax_bits(const QuantizeParams& p, const uint8_t* at, bool aligned) {
  switch (p.type) {
    case DType::kF32:
      return amax_bits<DType::kF32>(at, aligned, 1.0f);
    case DType::kF16:
      return amax_bits<DType::kF16>(at, aligned, 1.0f);
    case DType::kF8E4M3:
      return amax_bits<DType::kF8E4M3>(at, aligned, p.src_scale);
    default:
      return amax_bits<DType::kBF16>(at, aligned, 1.0f);
  }
}

__device__ uint32_t block_max(uint32_t value) {
  __shared__ uint32_t warps[kThreads / 32];
  value = __reduce_max_sync(~0u, value);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  return threadIdx.x < 32 ? __reduce_max_sync(~0u, warps[threadIdx.x % (kThreads / 32)]) : 0;
}

// Block (x, y): part x of expert y, its largest to parts[y * gridDim.x + x].
__global__ void __launch_bounds__(kThreads)
    amax_kernel(const QuantizeParams p, const ExpertRows rows, uint32_t unit_bytes, bool aligned,
                uint32_t* parts) {
  pdl_wait();
  const int64_t e = blockIdx.y;
  const auto inside = [&](int64_t row) { return min(max(row, int64_t{0}), p.m); };
  const int64_t begin = rows.offsets ? inside(rows.offsets[e]) : p.m / rows.experts * e;
  const int64_t end = rows.offsets ? inside(rows.offsets[e + 1]) : p.m / rows.experts * (e + 1);
  const uint32_t units = static_cast<uint32_t>(p.k / 16);
  uint32_t amax = 0;
  for (int64_t at = begin * units + blockIdx.x * kThreads + threadIdx.x; at < end * units;
       at += int64_t{gridDim.x} * kThreads) {
    const int64_t row = at / units, unit = at % units;
    const uint8_t* elements = p.src + row * p.src_row_bytes + unit * unit_bytes;
    amax = max(amax, amax_bits(p, elements, aligned));
  }
  pdl_trigger();
  amax = block_max(amax);
  if (threadIdx.x == 0) parts[e * gridDim.x + blockIdx.x] = amax;
}

__global__ void __launch_bounds__(kThreads)
    decode_scale_kernel(const uint32_t* parts, uint32_t count, float* decode_scales) {
  pdl_wait();
  uint32_t amax = 0;
  for (uint32_t i = threadIdx.x; i < count; i += kThreads) {
    amax = max(amax, parts[blockIdx.x * count + i]);
  }
  amax = block_max(amax);
  if (threadIdx.x == 0) decode_scales[blockIdx.x] = nvfp4_decode_scale(float_from_bits(amax));
  pdl_trigger();
}

uint32_t blocks_of_expert(uint32_t experts) { return std::max(kBlocks / experts, 1u); }

}  // namespace

size_t amax_scratch_bytes(uint32_t experts) {
  return size_t{blocks_of_expert(experts)} * experts * sizeof(uint32_t);
}

void launch_decode_scales(const QuantizeParams& p, const ExpertRows& rows, float* decode_scales,
                          void* scratch, nibble::Stream stream) {
  auto* parts = static_cast<uint32_t*>(scratch);
  const bool aligned = (reinterpret_cast<uintptr_t>(p.src) | p.src_row_bytes) % 16 == 0;
  const uint32_t blocks = blocks_of_expert(rows.experts);
  launch(
      {.grid = dim3(blocks, rows.experts), .block = kThreads, .pdl = stream.pdl, .stream = stream},
      "amax", amax_kernel, p, rows, static_cast<uint32_t>(16 * size_of(p.type)), aligned, parts);
  launch({.grid = rows.experts, .block = kThreads, .pdl = stream.pdl, .stream = stream},
         "decode_scale", decode_scale_kernel, parts, blocks, decode_scales);
}

}  // namespace nibble::cuda
