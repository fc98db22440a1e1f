#include "quantizer/row_loops.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "formats/e4m3.h"
#include "formats/float16.h"
#include "formats/mxfp4.h"
#include "formats/nvfp4.h"

namespace nibble {
namespace {

template <class T>
T load(const void* stored, int64_t i) {
  T value;
  std::memcpy(&value, static_cast<const uint8_t*>(stored) + i * static_cast<int64_t>(sizeof(T)),
              sizeof(T));
  return value;
}

// Calls fn with a function from an index to that element in fp32: a lambda, so that it is inlined.
template <class Fn>
auto with_type(DType type, const void* stored, Fn fn) {
  switch (type) {
    case DType::kF32:
      return fn([=](int64_t i) { return load<float>(stored, i); });
    case DType::kF16:
      return fn([=](int64_t i) { return fp16_to_float(load<uint16_t>(stored, i)); });
    default:
      return fn([=](int64_t i) { return bf16_to_float(load<uint16_t>(stored, i)); });
  }
}

// Signless bit patterns are ordered as the magnitudes they stand for, with Inf and NaN above all.
// As signed integers, because every processor can compare those.
template <class T>
T max_magnitude_bits(const void* stored, int64_t count) {
  T largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    const T bits = load<T>(stored, i) & std::numeric_limits<T>::max();
    largest = std::max(largest, bits);
  }
  return largest;
}

float amax(DType type, const void* stored, int64_t count) {
  if (type == DType::kF32) {
    return float_from_bits(static_cast<uint32_t>(max_magnitude_bits<int32_t>(stored, count)));
  }
  const auto bits = static_cast<uint16_t>(max_magnitude_bits<int16_t>(stored, count));
  return type == DType::kBF16 ? bf16_to_float(bits) : fp16_to_float(bits);
}

// In double: squares of fp32 values overflow or vanish in fp32.
void add(SquaredErrors& sum, double stored, double decoded) {
  sum.error += (stored - decoded) * (stored - decoded);
  sum.norm += stored * stored;
}

SquaredErrors errors(const EncodedBlocks& e) {
  return with_type(e.dtype, e.stored, [&](auto value) {
    const int64_t size = block_size(e.format);
    SquaredErrors sum;
    for (int64_t b = 0; b < e.blocks; ++b) {
      float decoded[kMxfp4BlockSize];
      if (e.format == WeightFormat::kMxfp4) {
        dequantize_mxfp4_block(e.codes + b * size / 2, e.scales[b], decoded);
      } else {
        dequantize_nvfp4_block(e.codes + b * size / 2, e.scales[b], e.global_decode_scale, decoded);
      }
      for (int64_t i = 0; i < size; ++i) add(sum, value(b * size + i), decoded[i]);
    }
    return sum;
  });
}

SquaredErrors encode_e4m3(DType type, const void* stored, float scale, int64_t count,
                          uint8_t* codes) {
  return with_type(type, stored, [&](auto value) {
    SquaredErrors sum;
    for (int64_t i = 0; i < count; ++i) {
      codes[i] = float_to_e4m3_satfinite(value(i) / scale);
      add(sum, value(i), e4m3_to_float(codes[i]) * scale);
    }
    return sum;
  });
}

}  // namespace

const RowLoops kPortableRowLoops = {amax, errors, encode_e4m3};

}  // namespace nibble
