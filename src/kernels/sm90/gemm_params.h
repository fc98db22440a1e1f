// What the GEMM kernels are told, for host code without CUDA's headers.
#pragma once

#include <cstdint>

#include "kernels/sm90/gemm_wgmma_work.h"

namespace nibble::sm90 {

enum class OutputType : int { kF32, kBF16, kF16 };

// y = alpha * a_scale * sum + bias; D = y + C, or, of weights whose rows alternate between eight of
// gate and eight of up, D = silu(gate) * up + C. `stride` elements from one token to the next.
struct Output {
  void* d = nullptr;
  int64_t d_stride = 0;
  const void* c = nullptr;  // null: none; of d's type
  int64_t c_stride = 0;
  const float* bias = nullptr;     // null: none; [n], gate before up
  const float* a_scale = nullptr;  // null: 1; what quantized activations are multiplied by
  int columns = 0;                 // of D
  OutputType type = OutputType::kBF16;
  bool silu_mul = false;

  // From this token on.
  Output from(int64_t token) const {
    const int64_t element = type == OutputType::kF32 ? 4 : 2;
    Output rest = *this;
    rest.d = static_cast<uint8_t*>(d) + token * d_stride * element;
    if (c != nullptr) rest.c = static_cast<const uint8_t*>(c) + token * c_stride * element;
    return rest;
  }
};

// In a decode block's shared memory, behind a barrier.
inline constexpr int kActivationsAt = 128;

// What the first loads need stands together, in front: the constant cache brings lines.
struct DecodeParams {
  const uint8_t* weights;
  // Up to `a`, and from tokens_log2 on, launch_decode's: divisions cost a kernel of a few
  // microseconds too much.
  int k_stride;                             // of the weights, in bytes
  int all_k;                                // blocks of k
  int warps_n, warps_k_log2;                // the block's warps: rows by k
  int cluster_log2;                         // blocks that share rows, each a part of k
  int ring_at, sums_at, activation_stride;  // bytes of shared memory
  const uint16_t* a;
  int64_t a_stride;
  int m, n, k;
  int tokens_log2;     // of m, rounded up
  int first_steps;     // of a warp, whose activations come before the weights
  int own_tiles;       // of 16 rows, that a block of the cluster adds up
  bool weights_first;  // fill the ring before waiting for the kernel in front
  const float* row_alpha;
  Output out;
};

// How the wgmma GEMM writes D: staged in shared memory, to leave in pieces of 16 bytes, where it is
// of the activations' type and aligned so.
enum class Staged : int { kNot, kPlain, kAddC, kSiluMul };

// What the first loads need stands in front here too.
struct WgmmaParams {
  const uint8_t* weights;
  int slot_weights;    // bytes of the weights in a slot of the ring
  int groups, stages;  // warpgroups side by side; slots
  int m, n, k;
  WgmmaWork work;
  // Of a shared tile, see gemm_wgmma_work.h. (sums_at once more: worked out in the kernel, it
  // spills.)
  int own_units, sum_bytes, sums_at;
  const float* row_alpha;
  Output out;
  float* parts;     // for its stream: a tile of sums for each block,
  uint64_t* flags;  // `launch` where they are there
  uint64_t launch;
  bool wide_output;  // D and C can be accessed in pieces of 16 bytes
  Staged staged;
};

}  // namespace nibble::sm90
