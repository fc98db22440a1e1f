#include "quantizer/row_loops.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "formats/e4m3.h"
#include "formats/float16.h"

namespace nibble {
namespace {

// Calls fn(values, widen) with the typed source and a function from an element to fp32: a lambda,
// so that it is inlined.
template <class Fn>
auto with_type(DType type, const void* src, Fn fn) {
  switch (type) {
    case DType::kF32:
      return fn(static_cast<const float*>(src), [](float v) { return v; });
    case DType::kF16:
      return fn(static_cast<const uint16_t*>(src), [](uint16_t v) { return fp16_to_float(v); });
    default:
      return fn(static_cast<const uint16_t*>(src), [](uint16_t v) { return bf16_to_float(v); });
  }
}

void widen(DType type, const void* src, int64_t count, float* out) {
  with_type(type, src, [&](const auto* values, auto to_float) {
    for (int64_t i = 0; i < count; ++i) out[i] = to_float(values[i]);
  });
}

// Four sums, so that it is vector code.
SquaredErrors errors(DType type, const void* stored, const float* decoded, int64_t count) {
  return with_type(type, stored, [&](const auto* values, auto to_float) {
    constexpr int kLanes = 4;
    double error[kLanes] = {}, norm[kLanes] = {};
    const auto add = [&](int64_t i, int lane) {
      const double w = to_float(values[i]);
      const double d = w - decoded[i];
      error[lane] += d * d;
      norm[lane] += w * w;
    };
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      for (int lane = 0; lane < kLanes; ++lane) add(i + lane, lane);
    }
    for (; i < count; ++i) add(i, 0);
    return SquaredErrors{std::accumulate(error, error + kLanes, 0.0),
                         std::accumulate(norm, norm + kLanes, 0.0)};
  });
}

float amax(const float* values, int64_t count) {
  float largest = 0.0f;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, float_abs(values[i]));
  return largest;
}

void encode_e4m3(float scale, float* values, int64_t count, uint8_t* codes) {
  for (int64_t i = 0; i < count; ++i) {
    codes[i] = float_to_e4m3_satfinite(values[i] / scale);
    values[i] = e4m3_to_float(codes[i]) * scale;
  }
}

}  // namespace

const RowLoops kPortableRowLoops = {widen, errors, amax, encode_e4m3};

}  // namespace nibble
