// What the GEMM kernels are told, for host code without CUDA's headers.
#pragma once

#include <cstdint>

namespace nibble::sm90 {

enum class OutputType : int { kF32, kBF16, kF16 };

// D = alpha * sum (+ C), `stride` elements from one token to the next.
struct Output {
  void* d = nullptr;
  int64_t d_stride = 0;
  const void* c = nullptr;  // null: none; of d's type
  int64_t c_stride = 0;
  OutputType type = OutputType::kBF16;
};

struct DecodeParams {
  const uint8_t* weights;
  const float* row_alpha;
  const uint16_t* a;  // bf16
  int64_t a_stride;
  Output out;
  int m, n, k;
  int warps_n, warps_k;  // the block's warps: rows by k
  int cluster;           // blocks that share rows, each a part of k
  bool weights_first;    // fill the ring before waiting for the kernel in front
};

struct WgmmaParams {
  const uint8_t* weights;
  const float* row_alpha;
  Output out;
  int m, n, k;
  int groups, stages;  // warpgroups that multiply; slots of the ring
  int split;           // blocks of a cluster that share a tile, each a part of k
  int stream_tiles;    // the first tiles, whose k is cut into equal pieces for all blocks
  float* parts;        // for these: a tile for each block,
  unsigned* flags;     // and whether it is there; 0 at the start
  bool wide_output;    // D and C can be accessed in pieces of 16 bytes
};

}  // namespace nibble::sm90
