// What this backend compiles, and how the table (gemm.cc) calls it. Read by nvcc: no fmt.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "nibble/device.h"
#include "nibble/types.h"

namespace nibble::cutlass_gemm {

// One launch: rows of weights that share a global scale, times all tokens. CUTLASS multiplies
// D^T[n, m] = B[n, k] * A[m, k]^T: the weights are always the side that fills a tile of 128 or 256
// rows, and the tokens the side that may be 32 or 64. D^T's columns are D's rows, so nothing is
// transposed in memory.
struct Problem {
  int m = 0, n = 0, k = 0;
  // Codes two a byte, aligned to 16 bytes, in rows of k / 2 bytes (weights) or token_stride bytes
  // apart; scales in kSwizzled128x4.
  const uint8_t* weights = nullptr;
  const uint8_t* weight_scales = nullptr;
  const uint8_t* tokens = nullptr;
  int64_t token_stride = 0;
  const uint8_t* token_scales = nullptr;
  const float* alpha = nullptr;  // one, in device memory
  void* d = nullptr;
  int64_t d_stride = 0;
  const void* c = nullptr;  // null: none
  int64_t c_stride = 0;
  const float* bias = nullptr;  // a value a row of weights; null: none
  int split_k = 1;
  int num_sms = 0;
  void* workspace = nullptr;
};

// Machine code that runs on which chips.
enum class Family : uint8_t {
  kSm100,  // sm_100f: 10.0 and 10.3
  kSm103,  // sm_103a: 10.3 alone, its MMAs of 96 along k
  kSm120,  // sm_120f: 12.0 and 12.1
};

struct Tile {
  int rows = 0;  // of weights
  int tokens = 0;
  int k = 0;
  int cluster = 1;  // blocks that share one MMA
  // Takes Problem::split_k > 1: each part multiplies a stretch of k, the last one adds them in
  // order.
  bool splits = false;

  bool operator==(const Tile&) const = default;
};

struct Kernel {
  Family family = Family::kSm100;
  WeightFormat format = WeightFormat::kNvfp4;
  DType d_type = DType::kBF16;
  Tile tile;
  int stages = 0;
  bool (*takes)(const Problem&) = nullptr;              // by CUTLASS's own rules of alignment
  size_t (*workspace_bytes)(const Problem&) = nullptr;  // of its shape, split_k and num_sms
  // Throws kInvalidArgument where CUTLASS refuses the arguments, kDevice where a launch fails.
  void (*launch)(const Problem&, Stream) = nullptr;
};

// One a .cu file; a few kernels each, as headers and templates are most of what they cost.
std::span<const Kernel> sm100_nvfp4();
std::span<const Kernel> sm100_others();
std::span<const Kernel> sm103_nvfp4();
std::span<const Kernel> sm120_all();

}  // namespace nibble::cutlass_gemm
