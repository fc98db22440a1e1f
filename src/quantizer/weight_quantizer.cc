#include "quantizer/weight_quantizer.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "dispatch/ops.h"
#include "formats/block_search.h"
#include "formats/e4m3.h"
#include "formats/float16.h"
#include "formats/nvfp4.h"
#include "quantizer/chunks.h"

namespace nibble {
namespace {

// Small enough for source, codes and decoded values of a chunk to stay in a second-level cache.
constexpr int64_t kChunkElements = 1 << 16;

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
    : options_(options), device_(device), loops_(row_loops(device.info().cpu)) {
  for (int i = 0; i < device.pool().size(); ++i) workers_.push_back({Device::cpu(1), {}, {}});
}

float WeightQuantizer::amax(const SourceWeight& weight) const {
  const int64_t total = weight.n * weight.k;
  std::vector<float> largest((total + kChunkElements - 1) / kChunkElements);
  for_each_chunk(device_.pool(), static_cast<int64_t>(largest.size()), [&](int, int64_t chunk) {
    const int64_t begin = chunk * kChunkElements;
    largest[chunk] = max_magnitude(
        weight.dtype, weight.bytes.data() + begin * static_cast<int64_t>(size_of(weight.dtype)),
        std::min(kChunkElements, total - begin));
  });
  // NaN must win: it compares false with everything.
  return *std::max_element(largest.begin(), largest.end(),
                           [](float a, float b) { return float_bits(a) < float_bits(b); });
}

float WeightQuantizer::global_decode_scale(WeightFormat format, float amax) const {
  if (format != WeightFormat::kNvfp4) return 1.0f;
  return 1.0f / nvfp4_encode_scale(amax, options_.method == QuantizeMethod::kFourOverSix
                                             ? kFourOverSixScaleMax
                                             : kE4m3Max);
}

SquaredErrors WeightQuantizer::quantize(const SourceWeight& weight, const Target& target) {
  const int64_t rows_per_chunk = std::max<int64_t>(1, kChunkElements / weight.k);
  const int64_t row_size = weight.k * static_cast<int64_t>(size_of(weight.dtype));
  std::vector<SquaredErrors> errors((weight.n + rows_per_chunk - 1) / rows_per_chunk);
  for_each_chunk(device_.pool(), static_cast<int64_t>(errors.size()),
                 [&](int worker, int64_t chunk) {
                   const int64_t row = chunk * rows_per_chunk;
                   SourceWeight rows = weight;
                   rows.n = std::min(rows_per_chunk, weight.n - row);
                   rows.bytes = weight.bytes.subspan(row * row_size, rows.n * row_size);
                   Target part = target;
                   part.codes += row * row_bytes(target.format, weight.k);
                   if (is_fp4(target.format)) {
                     part.scales += row * (weight.k / block_size(target.format));
                   } else {
                     part.row_scales += row;
                   }
                   errors[chunk] = quantize_rows(workers_[worker], rows, part);
                 });
  // In the order of the rows, so that a report does not depend on the number of threads.
  SquaredErrors sum;
  for (const SquaredErrors& e : errors) sum += e;
  return sum;
}

SquaredErrors WeightQuantizer::quantize_rows(Worker& worker, const SourceWeight& rows,
                                             const Target& target) const {
  const int64_t count = rows.n * rows.k;
  const uint8_t* bytes = rows.bytes.data();
  if (reinterpret_cast<uintptr_t>(bytes) % size_of(rows.dtype) != 0) {
    worker.aligned.assign(rows.bytes.begin(), rows.bytes.end());
    bytes = worker.aligned.data();
  }
  worker.decoded.resize(static_cast<size_t>(count));
  if (target.format == WeightFormat::kF8) {
    for (int64_t row = 0; row < rows.n; ++row) {
      const int64_t at = row * rows.k;
      float* const values = worker.decoded.data() + at;
      loops_.widen(rows.dtype, bytes + at * static_cast<int64_t>(size_of(rows.dtype)), rows.k,
                   values);
      target.row_scales[row] = e4m3_scale(loops_.amax(values, rows.k));
      loops_.encode_e4m3(target.row_scales[row], values, rows.k, target.codes + at);
    }
    return loops_.errors(rows.dtype, bytes, worker.decoded.data(), count);
  }
  nibble::quantize({.desc = {.format = target.format,
                             .method = options_.method,
                             .scale_rule = options_.scale_rule,
                             .src_type = rows.dtype,
                             .m = rows.n,
                             .k = rows.k},
                    .src = {const_cast<uint8_t*>(bytes), rows.dtype, rows.n, rows.k, rows.k},
                    .global_decode_scale = target.global_decode_scale,
                    .codes = target.codes,
                    .scales = target.scales},
                   worker.device);
  nibble::dequantize(
      {.desc = {.format = target.format, .dst_type = DType::kF32, .m = rows.n, .k = rows.k},
       .codes = target.codes,
       .scales = target.scales,
       .global_decode_scale = target.global_decode_scale,
       .dst = {worker.decoded.data(), DType::kF32, rows.n, rows.k, rows.k}},
      worker.device);
  return loops_.errors(rows.dtype, bytes, worker.decoded.data(), count);
}

}  // namespace nibble
