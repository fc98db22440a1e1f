#include <algorithm>
#include <utility>

#include "base/check.h"
#include "checkpoint/checkpoint.h"

namespace nibble {
namespace {

struct Stacked {
  std::vector<uint8_t> codes;
  std::vector<uint8_t> scales;
  std::vector<float> row_scales;
};

}  // namespace

WeightTensor concat_rows(std::span<const WeightTensor> parts) {
  NIBBLE_CHECK(!parts.empty(), ErrorCode::kInvalidArgument, "concat_rows: no weights");
  const WeightTensor& first = parts.front();
  const auto codes_per_row = static_cast<size_t>(row_bytes(first.format, first.k));
  const auto scales_per_row =
      is_fp4(first.format) ? static_cast<size_t>(first.k / block_size(first.format)) : 0;
  WeightTensor result;
  result.format = first.format;
  result.k = first.k;
  for (const WeightTensor& part : parts) {
    NIBBLE_CHECK(part.format == first.format && part.k == first.k, ErrorCode::kInvalidArgument,
                 "can't stack {} ({}, k = {}) under {} ({}, k = {})", part.name,
                 to_string(part.format), part.k, first.name, to_string(first.format), first.k);
    result.n += part.n;
  }
  auto stacked = std::make_shared<Stacked>();
  stacked->codes.reserve(static_cast<size_t>(result.n) * codes_per_row);
  stacked->scales.reserve(static_cast<size_t>(result.n) * scales_per_row);
  int64_t row = 0;
  for (const WeightTensor& part : parts) {
    const auto n = static_cast<size_t>(part.n);
    stacked->codes.insert(stacked->codes.end(), part.codes, part.codes + n * codes_per_row);
    if (scales_per_row != 0) {
      stacked->scales.insert(stacked->scales.end(), part.scales, part.scales + n * scales_per_row);
    }
    if (part.row_scales != nullptr) {
      stacked->row_scales.insert(stacked->row_scales.end(), part.row_scales, part.row_scales + n);
    }
    for (const WeightTensor::Segment& s : part.segments) {
      if (result.segments.empty() ||
          result.segments.back().global_decode_scale != s.global_decode_scale) {
        result.segments.push_back({row + s.row_begin, s.global_decode_scale});
      }
    }
    // Activations are quantized once for all parts, so the range must hold the widest.
    result.input_decode_scale = std::max(result.input_decode_scale, part.input_decode_scale);
    result.name += (row == 0 ? "" : "|") + part.name;
    row += part.n;
  }
  result.codes = stacked->codes.data();
  if (scales_per_row != 0) result.scales = stacked->scales.data();
  if (!stacked->row_scales.empty()) result.row_scales = stacked->row_scales.data();
  result.owner = std::move(stacked);
  return result;
}

}  // namespace nibble
