// sm90_fp4_decode_gemm: up to 16 tokens, one pass over the weights.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/sm90/gemm_params.h"
#include "kernels/sm90/widen.h"
#include "nibble/device.h"

namespace nibble::sm90 {

// One way to cut the work; see gemm_decode.cuh.
struct DecodeConfig {
  int tokens;  // most that one launch takes: 8 or 16
  int row_tiles, stages;
  int warps_n, warps_k;
  int cluster;
};

// Every kernel that is built, by tokens, row_tiles and stages (warps and cluster are free).
std::span<const DecodeConfig> decode_kernels();

// Whether the config's shared memory, threads and shares of rows and k come out right.
bool decode_fits(const DecodeConfig& config, int64_t m, int64_t n, int64_t k);

// `params` without the config's part; the config fits.
void launch_decode(const DecodeParams& params, const DecodeConfig& config, Wide type,
                   Stream stream);

}  // namespace nibble::sm90
