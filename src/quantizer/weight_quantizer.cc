#include "quantizer/weight_quantizer.h"

#include <algorithm>
#include <limits>

#include "base/thread_pool.h"
#include "dispatch/ops.h"
#include "formats/block_search.h"
#include "formats/e4m3.h"
#include "formats/nvfp4.h"

namespace nibble {
namespace {

// Small enough for source and codes to stay in a second-level cache until their errors are summed.
constexpr int64_t kBatchElements = 1 << 14;

// The smallest normal number at least, so that dividing by a scale loses nothing.
float e4m3_scale(float amax) {
  return amax > 0 ? std::max(amax / kE4m3Max, std::numeric_limits<float>::min()) : 1;
}

}  // namespace

WeightQuantizer::WeightQuantizer(const QuantizeOptions& options, const Device& device)
    : options_(options), loops_(row_loops(device.info().cpu)) {
  for (int i = 0; i < device.pool().size(); ++i)
    workers_.push_back({Device::cpu(1), {}, {}, {}, {}});
}

float WeightQuantizer::amax(const SourceWeight& rows) const {
  return loops_.amax(rows.dtype, rows.bytes.data(), rows.n * rows.k);
}

float WeightQuantizer::global_decode_scale(WeightFormat format, float amax) const {
  if (format != WeightFormat::kNvfp4) return 1.0f;
  return 1.0f / nvfp4_encode_scale(amax, options_.method == QuantizeMethod::kFourOverSix
                                             ? kFourOverSixScaleMax
                                             : kE4m3Max);
}

WeightQuantizer::Rows WeightQuantizer::quantize(int worker, const SourceWeight& rows,
                                                WeightFormat format, float global_decode_scale) {
  Worker& w = workers_[worker];
  const int64_t row_size = rows.k * static_cast<int64_t>(size_of(rows.dtype));
  const int64_t code_bytes = row_bytes(format, rows.k);
  const int64_t scale_count = is_fp4(format) ? rows.k / block_size(format) : 0;
  w.codes.resize(static_cast<size_t>(rows.n * code_bytes));
  w.scales.resize(static_cast<size_t>(rows.n * scale_count));
  w.row_scales.resize(is_fp4(format) ? 0 : static_cast<size_t>(rows.n));
  const uint8_t* bytes = rows.bytes.data();
  if (reinterpret_cast<uintptr_t>(bytes) % size_of(rows.dtype) != 0) {
    w.aligned.assign(rows.bytes.begin(), rows.bytes.end());
    bytes = w.aligned.data();
  }
  SquaredErrors errors;
  const int64_t step = std::max<int64_t>(1, kBatchElements / std::max<int64_t>(1, rows.k));
  for (int64_t row = 0; row < rows.n; row += step) {
    const int64_t n = std::min(step, rows.n - row);
    const uint8_t* const src = bytes + row * row_size;
    uint8_t* const codes = w.codes.data() + row * code_bytes;
    if (is_fp4(format)) {
      errors += quantize_fp4(w, {src, rows.dtype, n * rows.k}, format, global_decode_scale, codes,
                             w.scales.data() + row * scale_count);
      continue;
    }
    for (int64_t i = 0; i < n; ++i) {
      const uint8_t* const values = src + i * row_size;
      const float scale = e4m3_scale(loops_.amax(rows.dtype, values, rows.k));
      errors += loops_.encode_e4m3(rows.dtype, values, scale, rows.k, codes + i * rows.k);
      w.row_scales[static_cast<size_t>(row + i)] = scale;
    }
  }
  return {w.codes.data(), w.scales.data(), w.row_scales.data(), errors};
}

// Rows are whole blocks and lie one behind the other: to the op they are one row, whose vectors go
// on where a row ends.
SquaredErrors WeightQuantizer::quantize_fp4(Worker& worker, const Batch& batch, WeightFormat format,
                                            float global_decode_scale, uint8_t* codes,
                                            uint8_t* scales) const {
  nibble::quantize(
      {.desc = {.format = format,
                .method = options_.method,
                .scale_rule = options_.scale_rule,
                .src_type = batch.dtype,
                .m = 1,
                .k = batch.count},
       .src = {const_cast<uint8_t*>(batch.values), batch.dtype, 1, batch.count, batch.count},
       .global_decode_scale = global_decode_scale,
       .codes = codes,
       .scales = scales},
      worker.device);
  return loops_.errors({.format = format,
                        .dtype = batch.dtype,
                        .stored = batch.values,
                        .codes = codes,
                        .scales = scales,
                        .global_decode_scale = global_decode_scale,
                        .blocks = batch.count / block_size(format)});
}

}  // namespace nibble
