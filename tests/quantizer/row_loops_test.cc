#include "quantizer/row_loops.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "formats/e4m3.h"
#include "formats/float16.h"

namespace nibble {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

const RowLoops& fastest() { return row_loops(Device::cpu(1).info().cpu); }

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

// Bit for bit, but any NaN for a NaN.
void expect_same(const std::vector<float>& a, const std::vector<float>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i])) {
      EXPECT_TRUE(std::isnan(b[i])) << i;
    } else {
      EXPECT_EQ(float_bits(a[i]), float_bits(b[i])) << i << ": " << a[i] << " and " << b[i];
    }
  }
}

void expect_e4m3(const RowLoops& loops, float scale, const std::vector<float>& values) {
  std::vector<uint8_t> codes(values.size());
  std::vector<float> expected(values.size()), decoded = values;
  loops.encode_e4m3(scale, decoded.data(), static_cast<int64_t>(values.size()), codes.data());
  for (size_t i = 0; i < values.size(); ++i) {
    const uint8_t code = float_to_e4m3_satfinite(values[i] / scale);
    ASSERT_EQ(codes[i], code) << values[i] << " / " << scale;
    expected[i] = e4m3_to_float(code) * scale;
  }
  expect_same(expected, decoded);
}

TEST(RowLoops, E4m3IsTheScalarDefinition) {
  auto values = telling_values();
  while (values.size() % 8 != 0) values.push_back(3.0f);
  for (const RowLoops* loops : {&kPortableRowLoops, &fastest()}) {
    for (const float scale : {1.0f, 0.3f, 0x1p-126f, 0x1p100f, kInf}) {
      expect_e4m3(*loops, scale, values);
    }
  }
}

TEST(RowLoops, E4m3OfAnyBitPattern) {
  std::mt19937 random(1);
  std::vector<float> values(100'003);
  for (float& v : values) v = float_from_bits(static_cast<uint32_t>(random()));
  for (const RowLoops* loops : {&kPortableRowLoops, &fastest()}) {
    expect_e4m3(*loops, 1.0f, values);
    expect_e4m3(*loops, 0x1.6p-40f, values);
  }
  for (float& v : values) v = float_from_bits(0x3C000000u + static_cast<uint32_t>(random() >> 5));
  expect_e4m3(fastest(), 1.0f, values);
}

TEST(RowLoops, EveryHalfIsWidened) {
  std::vector<uint16_t> halves(1 << 16);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  const auto count = static_cast<int64_t>(halves.size());
  for (const DType type : {DType::kF16, DType::kBF16}) {
    std::vector<float> expected(halves.size()), found(halves.size());
    for (size_t i = 0; i < halves.size(); ++i) {
      expected[i] = type == DType::kF16 ? fp16_to_float(halves[i]) : bf16_to_float(halves[i]);
    }
    for (const RowLoops* loops : {&kPortableRowLoops, &fastest()}) {
      loops->widen(type, halves.data(), count, found.data());
      expect_same(expected, found);
    }
  }
  const auto values = telling_values();
  std::vector<float> found(values.size());
  fastest().widen(DType::kF32, values.data(), static_cast<int64_t>(values.size()), found.data());
  expect_same(values, found);
}

TEST(RowLoops, AmaxAtEveryPlaceOfEveryLength) {
  for (const RowLoops* loops : {&kPortableRowLoops, &fastest()}) {
    EXPECT_EQ(loops->amax(nullptr, 0), 0.0f);
    for (int64_t count = 1; count <= 40; ++count) {
      for (int64_t place = 0; place < count; ++place) {
        std::vector<float> values(static_cast<size_t>(count), 0.5f);
        values[static_cast<size_t>(place)] = -3.0f;
        if (place > 0) values[static_cast<size_t>(place - 1)] = kNan;
        EXPECT_EQ(loops->amax(values.data(), count), 3.0f) << count << " " << place;
      }
    }
    const float infinite[] = {1, 2, 3, -kInf, 5, 6, 7, 8, kNan};
    EXPECT_EQ(loops->amax(infinite, 9), kInf);
  }
}

TEST(RowLoops, ErrorsOfEveryLengthAndType) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (size_t count = 0; count < 70; ++count) {
      std::vector<float> wide(count), decoded(count);
      std::vector<uint16_t> halves(count);
      double error = 0, norm = 0;
      for (size_t i = 0; i < count; ++i) {
        wide[i] = normal(random);
        halves[i] = type == DType::kF16 ? float_to_fp16(wide[i]) : float_to_bf16(wide[i]);
        if (type != DType::kF32) {
          wide[i] = type == DType::kF16 ? fp16_to_float(halves[i]) : bf16_to_float(halves[i]);
        }
        decoded[i] = i % 3 == 0 ? 0.0f : wide[i] * 1.25f;
        const double d = static_cast<double>(wide[i]) - decoded[i];
        error += d * d;
        norm += static_cast<double>(wide[i]) * wide[i];
      }
      const void* stored = type == DType::kF32 ? static_cast<const void*>(wide.data())
                                               : static_cast<const void*>(halves.data());
      for (const RowLoops* loops : {&kPortableRowLoops, &fastest()}) {
        const auto found = loops->errors(type, stored, decoded.data(), static_cast<int64_t>(count));
        EXPECT_NEAR(found.error, error, 1e-6 * error) << to_string(type) << " " << count;
        EXPECT_NEAR(found.norm, norm, 1e-12 * norm) << to_string(type) << " " << count;
      }
    }
  }
}

TEST(RowLoops, ErrorsNeitherOverflowNorVanishAndShowNan) {
  for (const RowLoops* loops : {&kPortableRowLoops, &fastest()}) {
    for (const float size : {0x1p120f, 0x1p-140f}) {
      const std::vector<float> values(19, size), zeros(19, 0.0f);
      const auto found = loops->errors(DType::kF32, values.data(), zeros.data(), 19);
      EXPECT_EQ(found.error, 19.0 * size * static_cast<double>(size));
      EXPECT_EQ(found.norm, found.error);
    }
    for (const float bad : {kNan, kInf, -kInf}) {
      for (size_t place = 0; place < 11; ++place) {
        std::vector<float> values(11, 1.0f), decoded(11, 1.0f);
        values[place] = bad;
        EXPECT_FALSE(
            std::isfinite(loops->errors(DType::kF32, values.data(), decoded.data(), 11).error));
      }
    }
  }
}

}  // namespace
}  // namespace nibble
