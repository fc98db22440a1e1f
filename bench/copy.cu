#include "base/launch.h"
#include "bench/copy.cuh"

namespace nibble::bench {
namespace {

using cuda::launch;

// Sixteen bytes of scales leave per sixteen units, or per 32 where there are half as many.
template <int kThreads, int kUnits, int kReads, bool kCoalesced>
__global__ void __launch_bounds__(kThreads) copy_kernel(const CopyParams p) {
  const auto* src = reinterpret_cast<const uint4*>(p.src);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads * kUnits;
  uint4 x[kUnits][kReads] = {};
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
    const int64_t group = first + u * kThreads;
    if (group + threadIdx.x >= p.units) continue;
#pragma unroll
    for (int r = 0; r < kReads; ++r) {
      // Either neighbouring threads read neighbouring words, or a thread all words of its unit. The
      // last group of a matrix may be a part of one: there every thread keeps to its unit.
      const bool coalesced = kCoalesced && group + kThreads <= p.units;
      x[u][r] = src[coalesced ? group * kReads + r * kThreads + threadIdx.x
                              : (group + threadIdx.x) * kReads + r];
    }
  }
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
    const int64_t unit = first + u * kThreads + threadIdx.x;
    if (unit >= p.units) continue;
    uint4 all = x[u][0];
#pragma unroll
    for (int r = 1; r < kReads; ++r) {
      all.x ^= x[u][r].x, all.y ^= x[u][r].y, all.z ^= x[u][r].z, all.w ^= x[u][r].w;
    }
    if (kReads > 1 && p.more != nullptr) {
      reinterpret_cast<uint4*>(p.more)[2 * unit] = x[u][0];
      reinterpret_cast<uint4*>(p.more)[2 * unit + 1] = x[u][kReads - 1];
    }
    reinterpret_cast<uint2*>(p.codes)[unit] = make_uint2(all.x ^ all.z, all.y ^ all.w);
    if (unit % 16 == 0 && unit + 16 <= p.scale_bytes) {
      *reinterpret_cast<uint4*>(p.scales + unit) = all;
    }
  }
}

template <int kThreads, int kUnits, int kReads, bool kCoalesced>
void start(const CopyParams& p, Stream stream) {
  constexpr int64_t kPerBlock = kThreads * kUnits;
  launch({.grid = static_cast<uint32_t>((p.units + kPerBlock - 1) / kPerBlock),
          .block = kThreads,
          .stream = stream},
         "copy", copy_kernel<kThreads, kUnits, kReads, kCoalesced>, p);
}

template <int kReads>
void start_kernel(int kernel, const CopyParams& p, Stream stream) {
  switch (kernel) {
    case 0:
      return start<64, 1, kReads, true>(p, stream);
    case 1:
      return start<128, 1, kReads, true>(p, stream);
    case 2:
      return start<256, 1, kReads, true>(p, stream);
    case 3:
      return start<128, 1, kReads, false>(p, stream);
    case 4:
      return start<256, 1, kReads, false>(p, stream);
    default:
      return start<128, 2, kReads, false>(p, stream);
  }
}

}  // namespace

const char* copy_name(int kernel) {
  constexpr const char* kNames[kCopyKernels] = {"64 threads",
                                                "128 threads",
                                                "256 threads",
                                                "128 threads, whole units",
                                                "256 threads, whole units",
                                                "128 threads, 2 whole units"};
  return kNames[kernel];
}

void launch_copy(int kernel, int bytes_per_unit, const CopyParams& params, Stream stream) {
  if (bytes_per_unit == 16) return start_kernel<1>(kernel, params, stream);
  if (bytes_per_unit == 64) return start_kernel<4>(kernel, params, stream);
  start_kernel<2>(kernel, params, stream);
}

}  // namespace nibble::bench
