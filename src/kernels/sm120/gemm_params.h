// What the sm_120 GEMM kernels are told, for host code without CUDA's headers.
#pragma once

#include <cstdint>

#include "base/host_device.h"
#include "kernels/sm120/blocks.h"
#include "nibble/device.h"
#include "nibble/types.h"

namespace nibble::sm120 {

// y = row_alpha * a_scale * sum + bias; D = y + C, or, of weights whose blocks have eight rows of
// gate and eight of up, D = silu(gate) * up + C. `stride` elements from one token to the next.
struct Output {
  void* d = nullptr;
  int64_t d_stride = 0;
  const void* c = nullptr;  // null: none; of d's type
  int64_t c_stride = 0;
  const float* bias = nullptr;  // null: none; [n], gate before up
  DType type = DType::kBF16;    // kF32, kF16, kBF16, or kU8: rounded to bf16, then to NVFP4
  bool silu_mul = false;
  int columns = 0;  // of D
  // kU8: d takes codes, two a byte, d_stride in bytes.
  uint8_t* scales = nullptr;
  ScaleLayout layout = ScaleLayout::kLinear;
  const float* decode_scale = nullptr;  // one, in device memory
};

// The activations: quantized, or (scales null) bf16 or fp16 in rows aligned to 16 bytes, which each
// block of a tile of few tokens quantizes itself.
inline constexpr int kMostQuantizedTokens = 16;
struct Tokens {
  const uint8_t* data = nullptr;
  int64_t stride = 0;  // bytes from one token to the next
  const uint8_t* scales = nullptr;
  ScaleLayout layout = ScaleLayout::kLinear;
  bool words = true;  // every four scales lie in one aligned word
  bool fp16 = false;  // not quantized: fp16, else bf16
  // What multiplies NVFP4 values: scale_memory's float on the device, or, where that is null,
  // scale.
  const float* scale_memory = nullptr;
  float scale = 1.0f;
};

struct GemmParams {
  const uint8_t* weights;  // blocks.h
  const float* row_alpha;
  Tokens tokens;
  Output out;
  int m, n, k;
  int warps_n_log2, warps_k_log2;  // the block's warps: rows by k
  int split;                       // blocks of the grid that share a tile, each a part of k
  float* parts;                    // split > 1: their sums, part_floats(m, n, split)
};

NIBBLE_HD constexpr int64_t part_floats(int64_t m, int64_t n, int split) {
  return split > 1 ? split * m * row_blocks(n) * kBlockRows : 0;
}

// One way to cut the work; see gemm.cuh.
struct GemmConfig {
  int tokens;  // of a tile: 8 to 128
  int stages;
  int warps_n, warps_k;  // powers of two
};

inline constexpr GemmConfig kConfigs[] = {
    {8, 4, 1, 8},  {8, 4, 2, 4},  {8, 4, 4, 2},  {8, 4, 8, 1},   {16, 4, 1, 8},
    {16, 4, 2, 4}, {16, 4, 4, 2}, {16, 4, 8, 1}, {32, 4, 2, 4},  {32, 4, 4, 2},
    {32, 4, 8, 1}, {64, 3, 4, 2}, {64, 3, 8, 1}, {128, 3, 8, 1},
};

inline constexpr int kMaxThreads = 256;
inline constexpr int kSharedLimit = 99 * 1024;  // what sm_120 gives a block

// Where things lie in a block's shared memory, in bytes. Activations that a block quantizes itself
// stay there for all of its k, the rest passes through the ring.
struct GemmShared {
  int token_stride, scale_stride;  // from token to token
  int scales;                      // from codes to scales of the tokens
  int ring;                        // behind the resident activations
  int weights, stage;              // in a stage; of a stage
  int sum_stride;                  // floats from token to token
  int bytes;

  // resident_k: blocks of k that are held quantized, 0 for none.
  NIBBLE_HD constexpr GemmShared(const GemmConfig& c, int resident_k) : GemmShared() {
    const int blocks = resident_k > 0 ? resident_k : c.warps_k;
    // An odd number of 16 bytes: eight tokens' pieces then lie in different banks.
    token_stride = (blocks * (kBlockK / 2) + 15) / 16 * 16 + 16;
    scale_stride = blocks * 8 + 8;
    scales = c.tokens * token_stride;
    const int activations = (scales + c.tokens * scale_stride + 127) / 128 * 128;
    ring = resident_k > 0 ? activations : 0;
    weights = resident_k > 0 ? 0 : activations;
    stage = weights + c.warps_n * c.warps_k * kBlockBytes;
    sum_stride = c.warps_n * kBlockRows + 4;
    const int sums = c.warps_k * c.tokens * sum_stride * 4;
    const int used = ring + c.stages * stage;
    bytes = used > sums ? used : sums;
  }

 private:
  NIBBLE_HD constexpr GemmShared()
      : token_stride(0),
        scale_stride(0),
        scales(0),
        ring(0),
        weights(0),
        stage(0),
        sum_stride(0),
        bytes(0) {}
};

// The part of k that block `share` of `split` takes, in blocks of 128.
struct KRange {
  int begin, end;
  NIBBLE_HD constexpr KRange(int64_t k, int split, int share)
      : begin(static_cast<int>(k_blocks(k) * share / split)),
        end(static_cast<int>(k_blocks(k) * (share + 1) / split)) {}
};
NIBBLE_HD constexpr int longest_k_range(int64_t k, int split) {
  return static_cast<int>((k_blocks(k) + split - 1) / split);
}

// One kernel, two where k is split. The config is one of kConfigs, its shared memory fits.
// stream.pdl: see nibble/device.h.
void launch_hardware_gemm(const GemmParams& params, const GemmConfig& config, WeightFormat format,
                          Stream stream);
void launch_emulated_gemm(const GemmParams& params, const GemmConfig& config, WeightFormat format,
                          Stream stream);

}  // namespace nibble::sm120
