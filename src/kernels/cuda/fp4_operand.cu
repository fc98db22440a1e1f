#include "base/launch.h"

namespace nibble::cuda {
namespace {

constexpr int kThreads = 128;

__global__ void multiply_scales(const float* a_memory, float a_value, const float* scales,
                                int count, float* alphas) {
  const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (i < count) alphas[i] = (a_memory != nullptr ? *a_memory : a_value) * scales[i];
}

}  // namespace

void launch_multiply_scales(const float* a_memory, float a_value, const float* scales, int count,
                            float* alphas, Stream stream) {
  const auto blocks = static_cast<unsigned>((count + kThreads - 1) / kThreads);
  launch({.grid = blocks, .block = kThreads, .stream = stream}, "multiply_scales", multiply_scales,
         a_memory, a_value, scales, count, alphas);
}

}  // namespace nibble::cuda
