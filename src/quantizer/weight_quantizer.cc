#include "quantizer/weight_quantizer.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "base/thread_pool.h"
#include "dispatch/ops.h"
#include "formats/block_search.h"
#include "formats/e4m3.h"
#include "formats/float16.h"
#include "formats/nvfp4.h"

namespace nibble {
namespace {

// Small enough for source, codes and decoded values to stay in a second-level cache until their
// errors are summed.
constexpr int64_t kBatchElements = 1 << 14;

template <class T>
T load(const uint8_t* bytes, int64_t i) {
  T value;
  std::memcpy(&value, bytes + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

// Signless bit patterns are ordered as the magnitudes they stand for, with Inf and NaN above all.
// As signed integers, because every processor can compare those.
template <class T>
T max_magnitude_bits(const uint8_t* bytes, int64_t count) {
  T largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    const T bits = load<T>(bytes, i) & std::numeric_limits<T>::max();
    largest = std::max(largest, bits);
  }
  return largest;
}

float max_magnitude(DType type, const uint8_t* bytes, int64_t count) {
  if (type == DType::kF32) {
    return float_from_bits(static_cast<uint32_t>(max_magnitude_bits<int32_t>(bytes, count)));
  }
  const auto bits = static_cast<uint16_t>(max_magnitude_bits<int16_t>(bytes, count));
  return type == DType::kBF16 ? bf16_to_float(bits) : fp16_to_float(bits);
}

// The smallest normal number at least, so that dividing by a scale loses nothing.
float e4m3_scale(float amax) {
  return amax > 0 ? std::max(amax / kE4m3Max, std::numeric_limits<float>::min()) : 1;
}

}  // namespace

WeightQuantizer::WeightQuantizer(const QuantizeOptions& options, const Device& device)
    : options_(options), loops_(row_loops(device.info().cpu)) {
  for (int i = 0; i < device.pool().size(); ++i)
    workers_.push_back({Device::cpu(1), {}, {}, {}, {}, {}});
}

float WeightQuantizer::amax(const SourceWeight& rows) {
  return max_magnitude(rows.dtype, rows.bytes.data(), rows.n * rows.k);
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
    w.decoded.resize(static_cast<size_t>(std::min(step, rows.n) * rows.k));
    if (is_fp4(format)) {
      quantize_fp4(w, {src, rows.dtype, n, rows.k}, format, global_decode_scale, codes,
                   w.scales.data() + row * scale_count);
    } else {
      quantize_e4m3(w, {src, rows.dtype, n, rows.k}, codes, w.row_scales.data() + row);
    }
    errors += loops_.errors(rows.dtype, src, w.decoded.data(), n * rows.k);
  }
  return {w.codes.data(), w.scales.data(), w.row_scales.data(), errors};
}

void WeightQuantizer::quantize_e4m3(Worker& worker, const Batch& batch, uint8_t* codes,
                                    float* row_scales) const {
  loops_.widen(batch.dtype, batch.values, batch.n * batch.k, worker.decoded.data());
  for (int64_t row = 0; row < batch.n; ++row) {
    float* const values = worker.decoded.data() + row * batch.k;
    row_scales[row] = e4m3_scale(loops_.amax(values, batch.k));
    loops_.encode_e4m3(row_scales[row], values, batch.k, codes + row * batch.k);
  }
}

void WeightQuantizer::quantize_fp4(Worker& worker, const Batch& batch, WeightFormat format,
                                   float global_decode_scale, uint8_t* codes,
                                   uint8_t* scales) const {
  nibble::quantize(
      {.desc = {.format = format,
                .method = options_.method,
                .scale_rule = options_.scale_rule,
                .src_type = batch.dtype,
                .m = batch.n,
                .k = batch.k},
       .src = {const_cast<uint8_t*>(batch.values), batch.dtype, batch.n, batch.k, batch.k},
       .global_decode_scale = global_decode_scale,
       .codes = codes,
       .scales = scales},
      worker.device);
  nibble::dequantize(
      {.desc = {.format = format, .dst_type = DType::kF32, .m = batch.n, .k = batch.k},
       .codes = codes,
       .scales = scales,
       .global_decode_scale = global_decode_scale,
       .dst = {worker.decoded.data(), DType::kF32, batch.n, batch.k, batch.k}},
      worker.device);
}

}  // namespace nibble
