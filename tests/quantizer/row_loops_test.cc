#include "quantizer/row_loops.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "formats/e4m3.h"
#include "formats/float16.h"
#include "formats/mxfp4.h"
#include "formats/nvfp4.h"

namespace nibble {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr DType kTypes[] = {DType::kF32, DType::kF16, DType::kBF16};

const RowLoops& fastest() { return row_loops(Device::cpu(1).info().cpu); }

std::vector<const RowLoops*> all_loops() { return {&kPortableRowLoops, &fastest()}; }

// Values as a file stores them, `skew` bytes off, and what they then are.
struct Stored {
  Stored(DType of, const std::vector<float>& values, size_t skew = 0) : type(of), wide(values) {
    bytes.resize(skew + values.size() * size_of(type) + 1);
    data = bytes.data() + skew;
    for (size_t i = 0; i < values.size(); ++i) {
      if (type == DType::kF32) {
        std::memcpy(data + 4 * i, &values[i], 4);
        continue;
      }
      const bool fp16 = type == DType::kF16;
      const uint16_t half = fp16 ? float_to_fp16(values[i]) : float_to_bf16(values[i]);
      std::memcpy(data + 2 * i, &half, 2);
      wide[i] = fp16 ? fp16_to_float(half) : bf16_to_float(half);
    }
  }
  int64_t count() const { return static_cast<int64_t>(wide.size()); }

  DType type;
  std::vector<float> wide;
  std::vector<uint8_t> bytes;
  uint8_t* data;
};

void expect_near(const SquaredErrors& found, const SquaredErrors& expected) {
  EXPECT_NEAR(found.error, expected.error, 2e-6 * expected.error);
  EXPECT_NEAR(found.norm, expected.norm, 2e-6 * expected.norm);
}

void add(SquaredErrors& sum, double value, double decoded) {
  sum += {(value - decoded) * (value - decoded), value * value};
}

// Every code's value, every midpoint between two and its neighbours, what lies beyond, and all
// powers of two, of both signs.
std::vector<float> telling_values() {
  std::vector<float> values = {0.0f,   kInf,   kNan,   std::numeric_limits<float>::max(),
                               448.0f, 464.0f, 480.0f, std::nextafter(448.0f, 500.0f)};
  for (int code = 0; code <= kE4m3MaxCode; ++code) {
    const float value = e4m3_to_float(static_cast<uint8_t>(code));
    const float next = e4m3_to_float(static_cast<uint8_t>(std::min<int>(code + 1, kE4m3MaxCode)));
    for (const float v : {value, (value + next) / 2}) {
      values.insert(values.end(), {v, std::nextafter(v, -kInf), std::nextafter(v, kInf)});
    }
  }
  for (int e = -149; e < 128; ++e) values.push_back(std::ldexp(1.0f, e));
  for (size_t i = values.size(); i-- > 0;) values.push_back(-values[i]);
  return values;
}

void expect_e4m3(const RowLoops& loops, float scale, const std::vector<float>& values) {
  for (const DType type : kTypes) {
    const Stored stored(type, values);
    std::vector<uint8_t> codes(values.size());
    loops.encode_e4m3(type, stored.data, scale, stored.count(), codes.data());
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(codes[i], float_to_e4m3_satfinite(stored.wide[i] / scale))
          << to_string(type) << " " << stored.wide[i] << " / " << scale;
    }
  }
}

TEST(RowLoops, E4m3IsTheScalarDefinition) {
  auto values = telling_values();
  while (values.size() % 8 != 0) values.push_back(3.0f);
  for (const RowLoops* loops : all_loops()) {
    for (const float scale : {1.0f, 0.3f, 0x1p-126f, 0x1p100f, kInf}) {
      expect_e4m3(*loops, scale, values);
    }
  }
}

TEST(RowLoops, E4m3OfAnyBitPattern) {
  std::mt19937 random(1);
  std::vector<float> values(100'003);
  for (float& v : values) v = float_from_bits(static_cast<uint32_t>(random()));
  for (const RowLoops* loops : all_loops()) {
    expect_e4m3(*loops, 1.0f, values);
    expect_e4m3(*loops, 0x1.6p-40f, values);
  }
  for (float& v : values) v = float_from_bits(0x3C000000u + static_cast<uint32_t>(random() >> 5));
  expect_e4m3(fastest(), 1.0f, values);
}

TEST(RowLoops, AmaxAtEveryPlaceOfEveryLength) {
  for (const RowLoops* loops : all_loops()) {
    for (const DType type : kTypes) {
      EXPECT_EQ(loops->amax(type, nullptr, 0), 0.0f);
      for (size_t count = 1; count <= 150; ++count) {
        for (size_t place = 0; place < count; ++place) {
          std::vector<float> values(count, 0.5f);
          values[place] = -3.0f;
          const Stored stored(type, values, place % 4);
          ASSERT_EQ(loops->amax(type, stored.data, stored.count()), 3.0f) << count << " " << place;
        }
      }
      for (size_t place = 0; place < 70; ++place) {
        std::vector<float> values(70, 60000.0f);
        values[place] = -kInf;
        EXPECT_EQ(loops->amax(type, Stored(type, values).data, 70), kInf);
        values[(place + 33) % 70] = kNan;
        EXPECT_TRUE(std::isnan(loops->amax(type, Stored(type, values).data, 70)));
      }
    }
  }
}

TEST(RowLoops, ErrorsOfEveryLengthTypeAndFormat) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal(0.0f, 0.05f);
  for (const WeightFormat format : {WeightFormat::kNvfp4, WeightFormat::kMxfp4}) {
    const bool mx = format == WeightFormat::kMxfp4;
    const float global = mx ? 1.0f : 0.2f / 2688;
    for (const DType type : kTypes) {
      for (const int64_t blocks : {0, 1, 3, 8, 31, 77}) {
        std::vector<float> values(static_cast<size_t>(blocks * block_size(format)));
        for (size_t i = 0; i < values.size(); ++i) {  // blocks of all sizes, down to a scale of 0
          values[i] = std::ldexp(normal(random), -static_cast<int>(i / 64 % 20));
        }
        const Stored stored(type, values);
        std::vector<uint8_t> codes(values.size() / 2), scales(static_cast<size_t>(blocks));
        SquaredErrors expected;
        for (int64_t b = 0; b < blocks; ++b) {
          const float* x = stored.wide.data() + b * block_size(format);
          uint8_t* code = codes.data() + b * block_size(format) / 2;
          float decoded[kMxfp4BlockSize];
          if (mx) {
            scales[b] = quantize_mxfp4_block(x, Mxfp4ScaleRule::kCeil, code);
            dequantize_mxfp4_block(code, scales[b], decoded);
          } else {
            scales[b] = quantize_nvfp4_block(x, 1 / global, code);
            dequantize_nvfp4_block(code, scales[b], global, decoded);
          }
          for (int i = 0; i < block_size(format); ++i) add(expected, x[i], decoded[i]);
        }
        for (const RowLoops* loops : all_loops()) {
          expect_near(loops->errors(
                          {format, type, stored.data, codes.data(), scales.data(), global, blocks}),
                      expected);
        }
      }
    }
  }
}

TEST(RowLoops, ErrorsOfE4m3) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (const DType type : kTypes) {
    for (const size_t count : {0, 1, 8, 23, 511, 512, 1300}) {
      std::vector<float> values(count);
      for (float& v : values) v = normal(random);
      const Stored stored(type, values);
      const float scale = 4.0f / kE4m3Max;
      SquaredErrors expected;
      for (const float v : stored.wide) {
        add(expected, v, e4m3_to_float(float_to_e4m3_satfinite(v / scale)) * scale);
      }
      for (const RowLoops* loops : all_loops()) {
        std::vector<uint8_t> codes(count);
        expect_near(loops->encode_e4m3(type, stored.data, scale, stored.count(), codes.data()),
                    expected);
      }
    }
  }
}

// 32 values of one size, all codes 0.
SquaredErrors lost(const RowLoops& loops, WeightFormat format, uint8_t scale, float global,
                   const std::vector<float>& values) {
  const std::vector<uint8_t> codes(16), scales(2, scale);
  return loops.errors({format, DType::kF32, values.data(), codes.data(), scales.data(), global,
                       32 / block_size(format)});
}

TEST(RowLoops, ErrorsNeitherOverflowNorVanish) {
  for (const RowLoops* loops : all_loops()) {
    for (const int exponent : {110, 0, -110, -140}) {
      const float size = std::ldexp(1.0f, exponent);
      const double expected = 32.0 * size * static_cast<double>(size);
      const auto mx_scale = static_cast<uint8_t>(std::max(0, exponent + 127 - 2));
      const std::vector<float> values(32, size);
      for (const SquaredErrors& found :
           {lost(*loops, WeightFormat::kMxfp4, mx_scale, 1.0f, values),
            lost(*loops, WeightFormat::kNvfp4, 0x7E, size / 2688, values),
            lost(*loops, WeightFormat::kNvfp4, 0, std::max(size, 0x1p-120f) * 500, values)}) {
        EXPECT_EQ(found.error, expected) << exponent;
        EXPECT_EQ(found.norm, expected) << exponent;
      }
    }
  }
}

TEST(RowLoops, NanAndInfShow) {
  for (const RowLoops* loops : all_loops()) {
    for (const float bad : {kNan, kInf, -kInf}) {
      for (size_t place = 0; place < 32; ++place) {
        std::vector<float> values(32, 1.0f);
        values[place] = bad;
        for (const WeightFormat format : {WeightFormat::kNvfp4, WeightFormat::kMxfp4}) {
          EXPECT_FALSE(std::isfinite(lost(*loops, format, 0x38, 1.0f, values).error));
        }
        uint8_t codes[32];
        EXPECT_FALSE(
            std::isfinite(loops->encode_e4m3(DType::kF32, values.data(), 0.1f, 32, codes).error));
      }
    }
  }
}

}  // namespace
}  // namespace nibble
