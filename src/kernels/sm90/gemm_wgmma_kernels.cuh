// The kernels of gemm_wgmma_kernels.h for one type of activations.
#pragma once

#include <algorithm>
#include <utility>

#include "kernels/sm90/gemm_wgmma.cuh"
#include "kernels/sm90/gemm_wgmma_kernels.h"

namespace nibble::sm90 {

template <int kTokens, int kMaxGroups, int kKGroups, bool kMulticast, Wide kWide>
__global__ void __launch_bounds__(kMaxGroups * 128 + 128, 1)
    wgmma_gemm(const __grid_constant__ CUtensorMap activations, const WgmmaParams p) {
  wgmma_block<kTokens, kMaxGroups, kKGroups, kMulticast, false, kWide>(activations, p,
                                                                       cuda::cluster_index());
}

// The first blocks have the first tokens.
template <int kTokens, int kRestTokens, int kMaxGroups, Wide kWide>
__global__ void __launch_bounds__(kMaxGroups * 128 + 128, 1)
    wgmma_gemm_mixed(const __grid_constant__ CUtensorMap activations,
                     const __grid_constant__ CUtensorMap rest_activations, const WgmmaParams p,
                     const WgmmaParams rest) {
  static_assert(is_lowered(kMaxGroups));  // warpgroups that a tile has no rows for
  const int block = static_cast<int>(blockIdx.x), others = block - p.work.workers;
  if (others < 0) {
    wgmma_block<kTokens, kMaxGroups, 1, false, true, kWide>(activations, p, block);
  } else {
    wgmma_block<kRestTokens, kMaxGroups, 1, false, true, kWide>(rest_activations, rest, others);
  }
}

template <Wide kWide>
constexpr WgmmaFunctions wgmma_functions() {
  const auto kernels = []<size_t... i>(std::index_sequence<i...>) {
    return std::array{&wgmma_gemm<kWgmmaKernels[i].tokens, kWgmmaKernels[i].max_groups,
                                  kWgmmaKernels[i].k_groups, kWgmmaKernels[i].multicast, kWide>...};
  };
  const auto mixes = []<size_t... i>(std::index_sequence<i...>) {
    return std::array{
        &wgmma_gemm_mixed<kWgmmaMixes[i].own.tokens, kWgmmaMixes[i].rest.tokens,
                          std::max(kWgmmaMixes[i].own.groups, kWgmmaMixes[i].rest.groups),
                          kWide>...};
  };
  return {kernels(std::make_index_sequence<kWgmmaKernels.size()>()),
          mixes(std::make_index_sequence<kWgmmaMixes.size()>())};
}

}  // namespace nibble::sm90
