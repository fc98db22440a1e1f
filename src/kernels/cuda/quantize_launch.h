// What quantize.cc hands to the kernels. No fmt here: .cu files include it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "nibble/device.h"
#include "nibble/types.h"

namespace nibble::cuda {

// Up to kWorkTileRows rows of one expert: what the kernels take from the expert's rows at a time.
struct ExpertTile {
  uint32_t row = 0;        // the first, in src
  uint32_t scale_row = 0;  // of its scales
  uint32_t rows = 0;       // 0: no expert's
  uint32_t expert = 0;
};
inline constexpr int kWorkTileRows = 128;
inline constexpr int kMaxExperts = 1024;

// Everything is in device memory and aligned as quantize.cc checks.
struct QuantizeParams {
  const uint8_t* src = nullptr;
  int64_t src_row_bytes = 0;
  uint8_t* codes = nullptr;
  uint8_t* scales = nullptr;
  const float* decode_scale = nullptr;  // of every expert; null: encode_scale counts
  float encode_scale = 1.0f;
  float src_scale = 1.0f;             // of e4m3
  const ExpertTile* tiles = nullptr;  // null: one matrix
  uint32_t num_tiles = 0;
  int64_t m = 0;
  int64_t k = 0;
  WeightFormat format = WeightFormat::kNvfp4;
  DType type = DType::kBF16;
  ScaleLayout layout = ScaleLayout::kLinear;
  Mxfp4ScaleRule rule = Mxfp4ScaleRule::kCeil;
  QuantizeMethod method = QuantizeMethod::kRtn;
};

// kRtn, one matrix, src rows aligned to 16 bytes. rows_per_thread: 1, 2 or 4.
void launch_quantize(const QuantizeParams& params, int rows_per_thread, nibble::Stream stream);

// The same for kNvfp4 from a 16-bit type and few elements. elements: of a lane, 8 or 16.
void launch_quantize_small(const QuantizeParams& params, int elements, nibble::Stream stream);

// The same with params.tiles.
void launch_quantize_experts(const QuantizeParams& params, nibble::Stream stream);

// The same, with tiles or without, of silu(gate) * up. Not e4m3.
void launch_quantize_silu_mul(const QuantizeParams& params, nibble::Stream stream);

// The same of RMSNorm(src), one matrix, not e4m3. `residual`: null, or what is added to src first
// and takes the sum, its rows aligned as src's.
struct NormParams {
  uint8_t* residual = nullptr;
  int64_t residual_row_bytes = 0;
  const float* weight = nullptr;  // aligned to 16 bytes
  float eps = 0.0f;
};
constexpr int64_t kMaxNormCols = 32768;
// Units of sixteen elements that a thread holds of a row of 16-bit elements without a residual
// where there are many rows. Three or five where warps come out even with them, the last with few
// idle lanes and an SM's four schedulers with as many warps each; docs/quantize.md has what that
// gains. Few rows take two a thread, and where it is not two here they too add up the squares of
// each unit by itself: a row's bits stay the same however many there are. (Of the most rows, four a
// thread give the bits of two.)
constexpr int norm_units(int64_t k) {
  const int64_t slots = (k + 511) / 512;  // of a warp's 32 units
  if (slots == 5 || slots == 10 || slots == 13 || slots == 14) return 5;
  return slots == 3 || slots == 6 || slots == 9 || slots == 11 || slots == 12 ? 3 : 2;
}
void launch_quantize_rms_norm(const QuantizeParams& params, const NormParams& norm,
                              nibble::Stream stream);
// The part of it for many rows of a 16-bit type; false, and nothing done, for anything else.
bool launch_quantize_norm_quads(const QuantizeParams& params, const NormParams& norm,
                                nibble::Stream stream);

// One matrix, everything else, a thread a block.
void launch_quantize_any(const QuantizeParams& params, nibble::Stream stream);

// The rows of the experts. offsets: null, or [experts + 1] row numbers; without them each expert
// has m / experts rows.
struct ExpertRows {
  const int32_t* offsets = nullptr;
  uint32_t experts = 1;
};

// Fills tiles[0 .. num_expert_tiles), in order. Whatever the offsets are, rows stay within [0, m)
// and scale rows below scale_rows.
uint32_t num_expert_tiles(int64_t m, const ExpertRows& rows);
void launch_expert_tiles(const QuantizeParams& params, const ExpertRows& rows, int64_t scale_rows,
                         ExpertTile* tiles, nibble::Stream stream);

// decode_scales[e] = nvfp4_decode_scale(largest magnitude of expert e's rows): each block leaves
// its own largest in `scratch`, a second kernel takes the largest of these. So nothing needs
// clearing, and no order matters. scratch: amax_scratch_bytes.
size_t amax_scratch_bytes(uint32_t experts);
void launch_decode_scales(const QuantizeParams& params, const ExpertRows& rows,
                          float* decode_scales, void* scratch, nibble::Stream stream);

struct DequantizeParams {
  const uint8_t* codes = nullptr;
  const uint8_t* scales = nullptr;
  uint8_t* dst = nullptr;
  int64_t dst_row_bytes = 0;
  float decode_scale = 1.0f;
  int64_t m = 0;
  int64_t k = 0;
  WeightFormat format = WeightFormat::kNvfp4;
  DType type = DType::kF32;
  ScaleLayout layout = ScaleLayout::kLinear;
};
void launch_dequantize(const DequantizeParams& params, nibble::Stream stream);

}  // namespace nibble::cuda
