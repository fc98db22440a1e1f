// Block quantizers that search for the scale instead of computing it from amax; the formats are the
// same. All compare squared errors in fp32, and fall back to the plain scale where the block holds
// NaN or Inf.
#pragma once

#include <cstdint>

#include "base/host_device.h"
#include "formats/e2m1_block.h"
#include "formats/e4m3.h"
#include "formats/mxfp4.h"
#include "formats/nvfp4.h"
#include "formats/ue8m0.h"

namespace nibble {

// Pass this as scale_max of nvfp4_encode_scale and nvfp4_decode_scale for four-over-six: it leaves
// room for 1.5 times the largest block scale below 448.
inline constexpr float kFourOverSixScaleMax = 256.0f;

// Squared error of an NVFP4 block with this scale, in units of 1 / global_encode_scale squared.
NIBBLE_HD constexpr float nvfp4_block_error(const float* x, float global_encode_scale,
                                            uint8_t scale) {
  if (scale == 0) {  // everything decodes to 0; all of the scaled input is error
    float sum = 0.0f;
    for (int i = 0; i < kNvfp4BlockSize; ++i) {
      const float scaled = x[i] * global_encode_scale;
      sum += scaled * scaled;
    }
    return sum;
  }
  const float s = e4m3_to_float(scale);
  const float factor = nvfp4_factor(scale, global_encode_scale);
  return e2m1_block_error<kNvfp4BlockSize>(x, factor) * (s * s);
}

// The scale of least squared error among the e4m3 codes 1..126, the smallest of equals; that of
// quantize_nvfp4_block for blocks of zeros, with NaN or Inf, or with amax * encode scale >= 2^14
// (there the clipped largest element outweighs whatever fifteen others could gain below 448).
//
// Only a window is tried, with the result of all 126 as long as encode scale and squares stay
// within fp32's normal range. Doubling a scale that maps amax below 7 never helps: of the doubled
// grid, all that values can reach is on the old one. From 16 on, code c is twice code c - 8, and
// the plain code maps amax to at most 6.375 if it is 8 or more; hence the top. Downwards the
// clipped largest element alone bounds the error from below; hence the stop.
NIBBLE_HD constexpr uint8_t nvfp4_mse_scale(const float* x, float global_encode_scale) {
  const float amax = block_amax<kNvfp4BlockSize>(x);
  const uint8_t plain = float_to_e4m3_satfinite(nvfp4_ideal_scale(amax, global_encode_scale));
  if (amax == 0.0f || !(amax * global_encode_scale < 0x1p14f)) return plain;

  uint8_t best = plain;
  float best_error = 0x1.fffffep127f;
  const int top = plain < 8 ? 15 : plain + 7 < kE4m3MaxCode ? plain + 7 : kE4m3MaxCode;
  for (int code = top; code >= 1; --code) {
    const uint8_t scale = static_cast<uint8_t>(code);
    const float s = e4m3_to_float(scale);
    const float factor = nvfp4_factor(scale, global_encode_scale);
    const float clipped = amax * factor - kE2m1Max;
    if (clipped > 0.0f && clipped * clipped * (s * s) > best_error) break;
    const float error = e2m1_block_error<kNvfp4BlockSize>(x, factor) * (s * s);
    if (error <= best_error) {
      best = scale;
      best_error = error;
    }
  }
  return best;
}

// As quantize_nvfp4_block, with nvfp4_mse_scale.
NIBBLE_HD constexpr uint8_t quantize_nvfp4_block_mse(const float* x, float global_encode_scale,
                                                     uint8_t* codes) {
  const uint8_t scale = nvfp4_mse_scale(x, global_encode_scale);
  encode_e2m1_block<kNvfp4BlockSize>(x, nvfp4_factor(scale, global_encode_scale), codes);
  return scale;
}

// As quantize_nvfp4_block, choosing between the scale that maps amax to 6 and 1.5 times that scale,
// which maps it to 4 (e4m3 rounds after the multiplication); equal errors keep the first. e2m1 is
// coarsest between 4 and 6. Method: arXiv 2512.02010. The global scale should come from
// kFourOverSixScaleMax.
NIBBLE_HD constexpr uint8_t quantize_nvfp4_block_four_over_six(const float* x,
                                                               float global_encode_scale,
                                                               uint8_t* codes) {
  const float ideal = nvfp4_ideal_scale(block_amax<kNvfp4BlockSize>(x), global_encode_scale);
  const uint8_t to_six = float_to_e4m3_satfinite(ideal);
  const uint8_t to_four = float_to_e4m3_satfinite(1.5f * ideal);
  const bool four = nvfp4_block_error(x, global_encode_scale, to_four) <
                    nvfp4_block_error(x, global_encode_scale, to_six);
  const uint8_t scale = four ? to_four : to_six;
  encode_e2m1_block<kNvfp4BlockSize>(x, nvfp4_factor(scale, global_encode_scale), codes);
  return scale;
}

// As quantize_mxfp4_block, with the scale of least squared error among all 255; equal errors keep
// the ceil rule's. Only two can be it, b of the ceil rule and b - 1: larger ones have a subset of
// b's values up to amax, and b - 2 clips amax by more than 31 finer elements can gain.
NIBBLE_HD constexpr uint8_t quantize_mxfp4_block_mse(const float* x, uint8_t* codes) {
  const uint8_t ceil = ue8m0_from_amax(block_amax<kMxfp4BlockSize>(x), Mxfp4ScaleRule::kCeil);
  uint8_t scale = ceil;
  if (ceil > 0) {
    const uint8_t half = static_cast<uint8_t>(ceil - 1);
    // Errors are in units of each scale; doubling the scale quadruples the unit.
    const float error = 4.0f * e2m1_block_error<kMxfp4BlockSize>(x, ue8m0_reciprocal(ceil));
    if (e2m1_block_error<kMxfp4BlockSize>(x, ue8m0_reciprocal(half)) < error) scale = half;
  }
  encode_e2m1_block<kMxfp4BlockSize>(x, ue8m0_reciprocal(scale), codes);
  return scale;
}

// One block by any method: 16 values for kNvfp4, 32 for kMxfp4 (where `encode_scale` is not used,
// and `rule` only with kRtn).
NIBBLE_HD constexpr uint8_t quantize_block(WeightFormat format, QuantizeMethod method,
                                           Mxfp4ScaleRule rule, const float* x, float encode_scale,
                                           uint8_t* codes) {
  if (format == WeightFormat::kMxfp4) {
    return method == QuantizeMethod::kMse ? quantize_mxfp4_block_mse(x, codes)
                                          : quantize_mxfp4_block(x, rule, codes);
  }
  switch (method) {
    case QuantizeMethod::kMse:
      return quantize_nvfp4_block_mse(x, encode_scale, codes);
    case QuantizeMethod::kFourOverSix:
      return quantize_nvfp4_block_four_over_six(x, encode_scale, codes);
    default:
      return quantize_nvfp4_block(x, encode_scale, codes);
  }
}

}  // namespace nibble
