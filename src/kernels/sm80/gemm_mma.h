// sm80_fp4_mma_gemm: any number of tokens, on every chip from sm_80 on.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/sm90/gemm_params.h"
#include "kernels/sm90/widen.h"
#include "nibble/device.h"

namespace nibble::sm80 {

// One way to cut the work; see gemm_mma.cuh.
struct MmaConfig {
  int tokens;  // of a tile: 8, 16, 32 or 64
  int row_tiles, stages;
  int warps_n, warps_k;

  bool operator==(const MmaConfig&) const = default;
};

struct MmaParams {
  const uint8_t* weights;
  const float* row_alpha;
  const uint16_t* a;
  int64_t a_stride;
  sm90::Output out;
  int m, n, k;
  int warps_n, warps_k;  // the block's warps: rows by k
};

std::span<const MmaConfig> mma_configs();

// The config, whose part of `params` is left out, is one of mma_configs.
void launch_mma(const MmaParams& params, const MmaConfig& config, sm90::Wide type, Stream stream);

}  // namespace nibble::sm80
