#include "kernels/sm120/layout.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "formats/e2m1.h"
#include "formats/e4m3.h"
#include "formats/ue8m0.h"
#include "kernels/sm120/fragments.h"

namespace nibble::sm120 {
namespace {

// The byte with the codes of (row, k) and (row, k + 1), k even.
int code_byte(int row, int k) {
  const int in_step = k % kStepK;
  const int lane = row % 8 * 4 + in_step % 32 / 8;
  const int reg = row / 8 + in_step / 32 * 2;
  return k / kStepK * 512 + lane * 16 + reg * 4 + in_step % 8 / 2;
}

// `size`: of the blocks that share a scale.
int scale_byte(int row, int k, int64_t size) {
  const int lane = scale_lane_a(row, k / kStepK);
  return kBlockCodeBytes + lane * 4 + static_cast<int>(k % kStepK / size);
}

bool is_nan(WeightFormat format, uint8_t scale) {
  return format == WeightFormat::kMxfp4 ? scale == kUe8m0Nan : (scale & 0x7F) == kE4m3Nan;
}

}  // namespace

void pack_rows(const WeightTensor& t, int64_t row_block, uint8_t* packed, float* row_alpha) {
  const int64_t size = block_size(t.format);
  for (int64_t kb = 0; kb < k_blocks(t.k); ++kb) {
    std::memset(packed + block_offset(row_block, kb, t.n), 0, kBlockBytes);
  }
  for (int row = 0; row < kBlockRows; ++row) {
    const int64_t i = unpacked_row(row_block * kBlockRows + row, t.n, t.gate_up);
    float& alpha = row_alpha[row_block * kBlockRows + row];
    alpha = i < t.n ? 1.0f : 0.0f;
    if (i >= t.n) continue;
    for (const WeightTensor::Segment& s : t.segments) {
      if (t.format == WeightFormat::kNvfp4 && s.row_begin <= i) alpha = s.global_decode_scale;
    }
    for (int64_t k = 0; k < t.k; k += size) {
      uint8_t* const block = packed + block_offset(row_block, k / kBlockK, t.n);
      const int in_block = static_cast<int>(k % kBlockK);
      const uint8_t scale = t.scales[(i * t.k + k) / size];
      if (is_nan(t.format, scale)) {
        alpha = std::numeric_limits<float>::quiet_NaN();
        continue;
      }
      const bool e4m3 = t.format == WeightFormat::kNvfp4;
      block[scale_byte(row, in_block, size)] = e4m3 ? scale & 0x7F : scale;
      const int signs = e4m3 && (scale & 0x80) != 0 ? 0x88 : 0;
      const uint8_t* const codes = t.codes + (i * t.k + k) / 2;
      for (int j = 0; j < size / 2; ++j) {
        block[code_byte(row, in_block + 2 * j)] = static_cast<uint8_t>(codes[j] ^ signs);
      }
    }
  }
}

void unpack_block_row(const uint8_t* block, int row, WeightFormat format, float* out) {
  for (int k = 0; k < kBlockK; ++k) {
    const uint8_t scale = block[scale_byte(row, k, block_size(format))];
    const auto code = static_cast<uint8_t>(block[code_byte(row, k - k % 2)] >> (k % 2 * 4) & 15);
    out[k] = e2m1_to_float(code) *
             (format == WeightFormat::kMxfp4 ? ue8m0_to_float(scale) : e4m3_to_float(scale));
  }
}

}  // namespace nibble::sm120
