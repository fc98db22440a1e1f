// Every CPU quantizer gives the reference's bytes, and the reference is formats/.
#include "kernels/cpu/quantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "base/thread_pool.h"
#include "dispatch/cpu_features.h"
#include "formats/e4m3.h"
#include "formats/float16.h"
#include "formats/scale_layout.h"
#include "kernels/ref/quantize.h"
#include "nibble/error.h"

namespace nibble {
namespace {

constexpr DType kTypes[] = {DType::kF32, DType::kF16, DType::kBF16};
constexpr ScaleLayout kLayouts[] = {ScaleLayout::kLinear, ScaleLayout::kSwizzled128x4,
                                    ScaleLayout::kSwizzled8x4};
constexpr uint8_t kGuard = 0xA5;

struct Recipe {
  WeightFormat format;
  QuantizeMethod method;
  Mxfp4ScaleRule rule = Mxfp4ScaleRule::kCeil;
};
constexpr Recipe kRecipes[] = {
    {WeightFormat::kNvfp4, QuantizeMethod::kRtn},
    {WeightFormat::kNvfp4, QuantizeMethod::kMse},
    {WeightFormat::kNvfp4, QuantizeMethod::kFourOverSix},
    {WeightFormat::kMxfp4, QuantizeMethod::kRtn, Mxfp4ScaleRule::kCeil},
    {WeightFormat::kMxfp4, QuantizeMethod::kRtn, Mxfp4ScaleRule::kFloor},
    {WeightFormat::kMxfp4, QuantizeMethod::kRtn, Mxfp4ScaleRule::kEven},
    {WeightFormat::kMxfp4, QuantizeMethod::kMse},
};

DeviceInfo this_cpu() {
  DeviceInfo info;
  info.cpu = detect_cpu_features();
  return info;
}

// A matrix of any type with rows `stride` apart.
struct Matrix {
  Matrix(DType type, int64_t m, int64_t k, int64_t stride)
      : bytes(m * stride * size_of(type), 0xFF), view{bytes.data(), type, m, k, stride} {}
  void set(int64_t i, int64_t j, float v) {
    switch (view.dtype) {
      case DType::kF32:
        view.row<float>(i)[j] = v;
        break;
      case DType::kF16:
        view.row<uint16_t>(i)[j] = float_to_fp16(v);
        break;
      default:
        view.row<uint16_t>(i)[j] = float_to_bf16(v);
    }
  }

  std::vector<uint8_t> bytes;
  MatrixView view;
};

struct Quantized {
  std::vector<uint8_t> codes, scales;
  bool operator==(const Quantized&) const = default;
};

Quantized run(const QuantizeImpl& impl, const Recipe& recipe, const Matrix& src, ScaleLayout layout,
              float global, int threads) {
  const auto& v = src.view;
  const QuantizeArgs args{
      .desc = {recipe.format, recipe.method, recipe.rule, v.dtype, layout, v.rows, v.cols},
      .src = v,
      .global_decode_scale = global};
  Quantized out;
  const int64_t code_bytes = v.rows * v.cols / 2;
  const int64_t scale_size = scale_bytes(layout, v.rows, v.cols / block_size(recipe.format));
  out.codes.assign(code_bytes + 1, kGuard);
  out.scales.assign(scale_size + 1, kGuard);
  ThreadPool pool(threads);
  QuantizeArgs a = args;
  a.codes = out.codes.data();
  a.scales = out.scales.data();
  impl.launch(a, {}, {DeviceKind::kCpu, &pool, nullptr});
  EXPECT_EQ(out.codes.back(), kGuard) << impl.name << " wrote past the codes";
  EXPECT_EQ(out.scales.back(), kGuard) << impl.name << " wrote past the scales";
  return out;
}

class CpuQuantize : public ::testing::TestWithParam<const QuantizeImpl*> {
 protected:
  void SetUp() override {
    const Support s = GetParam()->can_implement({}, this_cpu());
    if (!s) GTEST_SKIP() << GetParam()->name << ": " << s.reason;
  }

  void expect_same(const Recipe& recipe, const Matrix& src, ScaleLayout layout, float global) {
    const Quantized want = run(ref::kQuantize, recipe, src, layout, global, 1);
    const Quantized got = run(*GetParam(), recipe, src, layout, global, 2);
    const auto describe = [&] {
      return fmt::format("{} {} {} rule {} {} {} [{}, {}] global {}", GetParam()->name,
                         to_string(recipe.format), to_string(recipe.method),
                         static_cast<int>(recipe.rule), to_string(src.view.dtype),
                         to_string(layout), src.view.rows, src.view.cols, global);
    };
    ASSERT_TRUE(want.scales == got.scales) << describe() << ": scales differ";
    ASSERT_TRUE(want.codes == got.codes) << describe() << ": codes differ";
  }
};

TEST_P(CpuQuantize, EveryShapeTypeAndLayout) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0f, 0.05f);
  for (const Recipe& recipe : kRecipes) {
    for (const DType type : kTypes) {
      for (const int64_t m : {1, 3, 8, 131}) {
        // Whole vectors of four blocks, tails of one to three, and rows longer than a chunk.
        for (const int64_t blocks : {1, 2, 3, 5, 36, 67}) {
          const int64_t k = blocks * block_size(recipe.format);
          Matrix src(type, m, k, k + 3);
          for (int64_t i = 0; i < m; ++i) {
            for (int64_t j = 0; j < k; ++j) src.set(i, j, normal(random));
          }
          for (const ScaleLayout layout : kLayouts) {
            expect_same(recipe, src, layout, 0.2f / 2688);
            if (HasFatalFailure()) return;
          }
        }
      }
    }
  }
}

// All patterns of both 16-bit types, shuffled so that NaN, Inf, subnormals and plain values meet in
// one block, and sorted so that blocks of one magnitude exist.
TEST_P(CpuQuantize, EverySixteenBitPattern) {
  std::mt19937 random(2);
  std::vector<uint16_t> patterns(1 << 16);
  for (size_t i = 0; i < patterns.size(); ++i) patterns[i] = static_cast<uint16_t>(i);
  for (int round = 0; round < 4; ++round) {
    for (const DType type : {DType::kF16, DType::kBF16}) {
      Matrix src(type, 64, 1024, 1024);
      std::memcpy(src.bytes.data(), patterns.data(), src.bytes.size());
      for (const Recipe& recipe : kRecipes) {
        for (const float global : {1.0f, 0x1p-100f, 3e-5f, 1e30f}) {
          expect_same(recipe, src, ScaleLayout::kLinear, global);
          if (HasFatalFailure()) return;
        }
      }
    }
    std::shuffle(patterns.begin(), patterns.end(), random);
  }
}

// Every bf16 pattern next to ordinary values, with the global scale a real tensor would have.
TEST_P(CpuQuantize, SpecialValuesAmongPlainOnes) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  Matrix src(DType::kBF16, 1024, 1024, 1024);
  for (int64_t i = 0; i < 1024; ++i) {
    for (int64_t j = 0; j < 1024; ++j) {
      src.set(i, j, normal(random));
      if (j % 16 == 5) src.view.row<uint16_t>(i)[j] = static_cast<uint16_t>(i * 64 + j / 16);
    }
  }
  for (const Recipe& recipe : kRecipes) {
    expect_same(recipe, src, ScaleLayout::kLinear, 4.0f / 2688);
    if (HasFatalFailure()) return;
  }
}

// Random fp32 bit patterns: NaN payloads, subnormals, magnitudes from end to end.
TEST_P(CpuQuantize, RandomFloatBits) {
  std::mt19937 random(4);
  for (int round = 0; round < 3; ++round) {
    Matrix src(DType::kF32, 128, 2080, 2081);
    for (int64_t i = 0; i < 128; ++i) {
      // One exponent per row in the later rounds, so that blocks are not ruled by one element.
      const uint32_t row_exponent = random() & 0x7F800000u;
      for (int64_t j = 0; j < 2080; ++j) {
        const uint32_t bits = static_cast<uint32_t>(random());
        const uint32_t near = (row_exponent + (bits >> 29 << 23)) & 0x7F800000u;
        const uint32_t value = round == 0 ? bits : (bits & 0x807FFFFFu) | near;
        std::memcpy(src.view.row<float>(i) + j, &value, 4);
      }
    }
    for (const Recipe& recipe : kRecipes) {
      for (const float global : {1.0f, 0x1p-118f, 0x1p-126f, 0x1p-140f, 0x1p126f}) {
        expect_same(recipe, src, ScaleLayout::kLinear, global);
        if (HasFatalFailure()) return;
      }
    }
  }
}

// Blocks whose elements sit exactly on, and one ulp beside, every midpoint of e2m1 for several
// scales, and whose amax sits around the midpoints of e4m3.
TEST_P(CpuQuantize, Midpoints) {
  constexpr float kMidpoints[] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f, 6.0f};
  Matrix src(DType::kF32, 508, 192, 192);
  for (int64_t i = 0; i < 508; ++i) {
    const float scale = e4m3_to_float(static_cast<uint8_t>(1 + i / 4 % 126));
    for (int64_t j = 0; j < 192; ++j) {
      float v = kMidpoints[j % 8] * scale;
      if (j % 16 == 15) v = 6.0f * scale * (1.0f + 0x1p-5f * static_cast<float>(i % 4));
      const int64_t nudge = j / 64 - 1;
      if (nudge != 0) v = std::nextafter(v, nudge > 0 ? 1e9f : 0.0f);
      src.set(i, j, (j / 8 + j) % 3 == 0 ? -v : v);
    }
  }
  for (const Recipe& recipe : kRecipes) {
    expect_same(recipe, src, ScaleLayout::kLinear, 1.0f);
    if (HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(, CpuQuantize,
                         ::testing::Values(&cpu::kPortableQuantize, &cpu::kAvx2Quantize),
                         [](const auto& p) { return std::string(p.param->name); });

class CpuDequantize : public ::testing::TestWithParam<const DequantizeImpl*> {};

TEST_P(CpuDequantize, EveryCodeScaleTypeAndLayout) {
  const DequantizeImpl& impl = *GetParam();
  if (const Support s = impl.can_implement({}, this_cpu()); !s) {
    GTEST_SKIP() << impl.name << ": " << s.reason;
  }
  ThreadPool pool(2);
  const Stream stream{DeviceKind::kCpu, &pool, nullptr};
  for (const WeightFormat format : {WeightFormat::kNvfp4, WeightFormat::kMxfp4}) {
    const int64_t block = block_size(format), cols = 67, k = cols * block, m = 137;
    std::vector<uint8_t> codes(m * k / 2);
    for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i * 37 + i / 256);
    for (const ScaleLayout layout : kLayouts) {
      std::vector<uint8_t> scales(scale_bytes(layout, m, cols));
      for (size_t i = 0; i < scales.size(); ++i) scales[i] = static_cast<uint8_t>(i);
      for (const DType type : kTypes) {
        const int64_t stride = k + 5;
        Matrix want(type, m, k, stride), got(type, m, k, stride);
        DequantizeArgs args{.desc = {format, type, layout, m, k},
                            .codes = codes.data(),
                            .scales = scales.data(),
                            .global_decode_scale = 0.3f / 2688,
                            .dst = want.view};
        ref::kDequantize.launch(args, {}, stream);
        args.dst = got.view;
        impl.launch(args, {}, stream);
        ASSERT_TRUE(want.bytes == got.bytes) << impl.name << " " << to_string(format) << " "
                                             << to_string(layout) << " " << to_string(type);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, CpuDequantize,
                         ::testing::Values(&cpu::kPortableDequantize, &cpu::kAvx2Dequantize),
                         [](const auto& p) { return std::string(p.param->name); });

TEST(CpuQuantizeSupport, SaysWhyNot) {
  EXPECT_EQ(cpu::kAvx2Quantize.can_implement({}, DeviceInfo{}).reason, "needs AVX2, FMA and F16C");
  EXPECT_TRUE(cpu::kPortableQuantize.can_implement({}, DeviceInfo{}));
  QuantizeDesc desc;
  desc.src_type = DType::kI8;
  EXPECT_EQ(cpu::kPortableQuantize.can_implement(desc, DeviceInfo{}).reason,
            "src must be F32, F16, BF16 or F8_E4M3, found I8");
  desc = {};
  desc.input = QuantizeInput::kSiluMul;
  EXPECT_EQ(cpu::kPortableQuantize.can_implement(desc, DeviceInfo{}).reason,
            "a CPU gains nothing by fusing: run silu_mul or rms_norm first");
  DeviceInfo cuda;
  cuda.kind = DeviceKind::kCuda;
  EXPECT_FALSE(cpu::kPortableQuantize.can_implement({}, cuda));
}

// Each change to good arguments is refused by name.
TEST(QuantizeArgs, AreCheckedBeforeAnythingRuns) {
  std::vector<float> x(4 * 32), weight(32);
  std::vector<uint8_t> codes(4 * 16), scales(4 * 2);
  const auto error_of = [&](const auto& change) {
    QuantizeArgs a;
    a.desc = {.src_type = DType::kF32, .m = 4, .k = 32};
    a.src = {x.data(), DType::kF32, 4, 32, 32};
    a.codes = codes.data();
    a.scales = scales.data();
    a.norm_weight = weight.data();
    change(a);
    try {
      validate(a);
      row_groups(a);
      return std::string("no error");
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
      return std::string(e.what());
    }
  };
  const auto expect = [&](const char* words, const auto& change) {
    EXPECT_THAT(error_of(change), testing::HasSubstr(words));
  };
  expect("no error", [](QuantizeArgs&) {});
  expect("no error", [](QuantizeArgs& a) { a.desc.experts = 2; });
  expect("m must be a multiple of experts = 3", [](QuantizeArgs& a) { a.desc.experts = 3; });
  expect("experts must be 0 ..", [](QuantizeArgs& a) { a.desc.experts = -1; });
  expect("ragged rows need experts", [](QuantizeArgs& a) { a.desc.ragged = true; });
  expect("expert_offsets is null", [](QuantizeArgs& a) {
    a.desc.ragged = true;
    a.desc.experts = 2;
  });
  for (const std::vector<int32_t>& offsets :
       {std::vector<int32_t>{0, 3, 2}, {-1, 2, 4}, {0, 2, 5}}) {
    expect("expert_offsets must not decrease and lie in [0, 4]", [&](QuantizeArgs& a) {
      a.desc.ragged = true;
      a.desc.experts = 2;
      a.expert_offsets = offsets.data();
    });
  }
  expect("src must be [4, 64], found [4, 32]",
         [](QuantizeArgs& a) { a.desc.input = QuantizeInput::kSiluMul; });
  expect("a residual goes with rms_norm", [](QuantizeArgs& a) { a.desc.has_residual = true; });
  expect("residual is null", [](QuantizeArgs& a) {
    a.desc.input = QuantizeInput::kRmsNorm;
    a.desc.has_residual = true;
  });
  expect("norm_eps must be at least 0", [](QuantizeArgs& a) {
    a.desc.input = QuantizeInput::kRmsNorm;
    a.norm_eps = -1.0f;
  });
  expect("src_scale must be finite and positive", [](QuantizeArgs& a) {
    a.desc.src_type = a.src.dtype = DType::kF8E4M3;
    a.src_scale = 0.0f;
  });
  expect("silu_mul and rms_norm take F32, F16 or BF16", [](QuantizeArgs& a) {
    a.desc.src_type = a.src.dtype = DType::kF8E4M3;
    a.desc.input = QuantizeInput::kRmsNorm;
  });
}

TEST(QuantizeScaleRows, CountsEveryExpertsPadding) {
  QuantizeDesc d{.layout = ScaleLayout::kSwizzled128x4, .m = 300, .k = 64};
  EXPECT_EQ(quantize_scale_rows(d), 384);
  EXPECT_EQ(quantize_scale_bytes(d), 384 * 4);
  d.experts = 2;
  EXPECT_EQ(quantize_scale_rows(d), 2 * 256);
  d.ragged = true;  // 299 + 1: 384 + 128
  EXPECT_EQ(quantize_scale_rows(d), 512);
  d.experts = 1000;  // 300 of a row each
  EXPECT_EQ(quantize_scale_rows(d), 300 * 128);
  d.layout = ScaleLayout::kLinear;
  EXPECT_EQ(quantize_scale_rows(d), 300);
}

}  // namespace
}  // namespace nibble
