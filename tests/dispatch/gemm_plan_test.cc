#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <random>
#include <vector>

#include "dispatch/ops.h"
#include "nibble/error.h"
#include "nibble/gemm.h"
#include "nibble/scales.h"

namespace nibble {
namespace {

using testing::HasSubstr;

// [2, 16] NVFP4: row 0 all ones (code 2) at scale 1 (0x38), row 1 all twos (code 4) at scale 0.5.
struct TinyWeight {
  std::vector<uint8_t> codes = std::vector<uint8_t>(16);
  std::vector<uint8_t> scales = {0x38, 0x30};
  WeightTensor tensor;
  TinyWeight() {
    std::fill_n(codes.begin(), 8, 0x22);
    std::fill_n(codes.begin() + 8, 8, 0x44);
    tensor.name = "tiny";
    tensor.format = WeightFormat::kNvfp4;
    tensor.n = 2;
    tensor.k = 16;
    tensor.codes = codes.data();
    tensor.scales = scales.data();
    tensor.segments = {{0, 2.0f}, {1, 10.0f}};
  }
};

std::string prepare_error(const WeightTensor& tensor) {
  try {
    prepare(tensor, Device::cpu(1));
    return "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    return e.what();
  }
}

TEST(GemmPlan, EverySegmentKeepsItsScale) {
  const Device device = Device::cpu(2);
  const TinyWeight w;
  const GemmPlan plan(prepare(w.tensor, device), device, {.max_m = 40});
  for (int64_t m = 1; m <= 40; ++m) {
    std::vector<float> a(m * 16, 0.25f);
    std::vector<float> d(m * 2, NAN);
    plan.run(a.data(), 16, d.data(), 2, m);
    for (int64_t i = 0; i < m; ++i) {
      EXPECT_FLOAT_EQ(d[2 * i], 16 * 0.25f * 1 * 2) << m;
      EXPECT_FLOAT_EQ(d[2 * i + 1], 16 * 0.25f * 2 * 0.5f * 10) << m;
    }
  }
}

TEST(GemmPlan, AddsToTheOutput) {
  const Device device = Device::cpu(1);
  const TinyWeight w;
  const GemmPlan plan(prepare(w.tensor, device), device, {.add = true});
  const std::vector<float> a(16, 1.0f);
  std::vector<float> d = {100, 200};
  plan.run(a.data(), 16, d.data(), 2, 1);
  EXPECT_FLOAT_EQ(d[0], 132);
  EXPECT_FLOAT_EQ(d[1], 360);
}

TEST(GemmPlan, ForcedImplementationRunsAndSaysSo) {
  const TinyWeight w;
  const Device device = Device::cpu(1, "gemm=ref_gemm");
  const GemmPlan plan(prepare(w.tensor, device), device, {});
  const KernelChoice choice = plan.choice(1);
  EXPECT_EQ(choice.impl, "ref_gemm");
  EXPECT_EQ(choice.reason, "forced by NIBBLE_FORCE_IMPL");
}

TEST(GemmPlan, RefusesMOutsideThePlan) {
  const Device device = Device::cpu(1);
  const TinyWeight w;
  const GemmPlan plan(prepare(w.tensor, device), device, {.max_m = 3});
  std::vector<float> a(64), d(8);
  for (const int64_t m : {0, 4}) {
    try {
      plan.run(a.data(), 16, d.data(), 2, m);
      FAIL() << m;
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), HasSubstr("m must be 1 .. 3, found " + std::to_string(m)));
    }
  }
}

// [n, k] of random codes with typical block scales.
struct RandomTensor {
  std::vector<uint8_t> codes, scales;
  WeightTensor tensor;
  RandomTensor(WeightFormat format, int64_t n, int64_t k, bool gate_up = false)
      : codes(n * k / 2), scales(n * k / block_size(format)) {
    std::mt19937 random(3);
    for (uint8_t& c : codes) c = static_cast<uint8_t>(random());
    const int middle = format == WeightFormat::kNvfp4 ? 0x30 : 120;
    for (uint8_t& s : scales) s = static_cast<uint8_t>(middle + random() % 8);
    tensor.name = "random";
    tensor.format = format;
    tensor.n = n;
    tensor.k = k;
    tensor.codes = codes.data();
    tensor.scales = scales.data();
    tensor.segments = {{0, 0.5f}};
    tensor.gate_up = gate_up;
  }
};

// m rows of k values, quantized by the op.
struct Fp4Rows {
  std::vector<uint8_t> codes, scales;
  float decode;
  Fp4Rows(const std::vector<float>& x, float decode_scale, WeightFormat format, ScaleLayout layout,
          int64_t m, const Device& device)
      : codes(x.size() / 2),
        scales(scale_bytes(format, layout, m, std::ssize(x) / m)),
        decode(decode_scale) {
    const int64_t k = std::ssize(x) / m;
    QuantizeArgs q;
    q.desc = {.format = format, .src_type = DType::kF32, .layout = layout, .m = m, .k = k};
    q.src = {const_cast<float*>(x.data()), DType::kF32, m, k, k};
    q.global_decode_scale = decode;
    q.codes = codes.data();
    q.scales = scales.data();
    quantize(q, device);
  }
};

constexpr ScaleLayout kLayouts[] = {ScaleLayout::kLinear, ScaleLayout::kSwizzled128x4,
                                    ScaleLayout::kSwizzled8x4};

TEST(GemmPlan, QuantizedActivationsGiveWhatQuantizingInTheGemmGives) {
  const Device device = Device::cpu(2);
  constexpr int64_t kM = 37, kN = 48, kK = 160;
  constexpr float kDecode = 0.02f;
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  std::vector<float> a(kM * kK);
  for (float& x : a) x = normal(random);
  for (const WeightFormat format : {WeightFormat::kNvfp4, WeightFormat::kMxfp4}) {
    RandomTensor w(format, kN, kK);
    w.tensor.input_decode_scale = kDecode;
    const LinearWeight weight = prepare(w.tensor, device, ActivationMode::kFp4);
    const GemmPlan floats(weight, device, {.max_m = kM, .activation = ActivationMode::kFp4});
    std::vector<float> want(kM * kN);
    floats.run(a.data(), kK, want.data(), kN, kM);
    for (const ScaleLayout layout : kLayouts) {
      const GemmPlan plan(
          weight, device,
          {.max_m = kM, .a = DType::kU8, .activation = ActivationMode::kFp4, .a_layout = layout});
      EXPECT_EQ(plan.activation_layout(1), layout);
      const Fp4Rows q(a, kDecode, format, layout, kM, device);
      std::vector<float> d(kM * kN, NAN);
      plan.run({.a = q.codes.data(),
                .a_stride = kK / 2,
                .a_scales = q.scales.data(),
                .a_decode_scale = format == WeightFormat::kNvfp4 ? &q.decode : nullptr,
                .d = d.data(),
                .d_stride = kN},
               kM);
      EXPECT_EQ(d, want) << to_string(format) << " " << to_string(layout);
    }
  }
}

TEST(GemmPlan, QuantizedOutputIsWhatQuantizingItsBf16Gives) {
  const Device device = Device::cpu(2);
  constexpr int64_t kM = 9, kK = 64;
  constexpr float kDecode = 0.25f;
  std::vector<float> a(kM * kK);
  std::mt19937 random(6);
  std::normal_distribution<float> normal;
  for (float& x : a) x = normal(random);
  for (const bool gate_up : {false, true}) {
    const RandomTensor w(WeightFormat::kNvfp4, 96, kK, gate_up);
    const LinearWeight weight = prepare(w.tensor, device, ActivationMode::kFp4);
    const int64_t columns = weight.columns();
    GemmOptions options{.max_m = kM, .d = DType::kBF16, .activation = ActivationMode::kFp4};
    std::vector<uint16_t> bits(kM * columns);
    GemmPlan(weight, device, options).run(a.data(), kK, bits.data(), columns, kM);
    std::vector<float> rounded;
    for (const uint16_t b : bits) rounded.push_back(std::bit_cast<float>(uint32_t{b} << 16));
    options.d = DType::kU8;
    for (const ScaleLayout layout : kLayouts) {
      options.d_layout = layout;
      const GemmPlan plan(weight, device, options);
      const Fp4Rows want(rounded, kDecode, WeightFormat::kNvfp4, layout, kM, device);
      std::vector<uint8_t> codes(want.codes.size()), scales(want.scales.size(), 0xFF);
      plan.run({.a = a.data(),
                .a_stride = kK,
                .d = codes.data(),
                .d_stride = columns / 2,
                .d_scales = scales.data(),
                .d_decode_scale = &kDecode},
               kM);
      EXPECT_EQ(codes, want.codes) << to_string(layout) << gate_up;
      EXPECT_EQ(scales, want.scales) << to_string(layout) << gate_up;
    }
  }
}

// The first writes the second's activations.
TEST(GemmPlan, ScalesLieInSmallTilesForFewRowsAndAsTheReaderWants) {
  const Device device = Device::cpu(2);
  constexpr int64_t kM = 40, kK = 64, kN = 96;
  const RandomTensor up(WeightFormat::kNvfp4, kN, kK), down(WeightFormat::kNvfp4, kK, kN);
  GemmOptions options{.max_m = kM, .a = DType::kU8, .activation = ActivationMode::kFp4};
  const GemmPlan second(prepare(down.tensor, device, options.activation), device, options);
  options.d = DType::kU8;
  const LinearWeight weight = prepare(up.tensor, device, options.activation);
  const GemmPlan alone(weight, device, options);
  for (int64_t m = 1; m <= kM; ++m) {
    const ScaleLayout want = m <= 32 ? ScaleLayout::kSwizzled8x4 : ScaleLayout::kSwizzled128x4;
    EXPECT_EQ(second.activation_layout(m), want) << m;
    EXPECT_EQ(alone.output_layout(m), want) << m;
  }
  const GemmPlan linear(prepare(down.tensor, device, options.activation), device,
                        {.max_m = kM,
                         .a = DType::kU8,
                         .activation = options.activation,
                         .a_layout = ScaleLayout::kLinear});
  options.d_reader = &linear;
  EXPECT_EQ(GemmPlan(weight, device, options).output_layout(1), ScaleLayout::kLinear);

  options.d_reader = &second;
  const GemmPlan first(weight, device, options);
  const float decode = 0.05f, between = 0.5f;
  for (const int64_t m : {1, 8, 33}) {
    std::vector<float> x(m * kK);
    for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i));
    const ScaleLayout layout = first.activation_layout(m);
    const Fp4Rows q(x, decode, WeightFormat::kNvfp4, layout, m, device);
    EXPECT_EQ(first.output_layout(m), second.activation_layout(m));
    std::vector<uint8_t> codes(m * kN / 2);
    std::vector<uint8_t> scales(scale_bytes(WeightFormat::kNvfp4, first.output_layout(m), m, kN));
    first.run({.a = q.codes.data(),
               .a_stride = kK / 2,
               .a_scales = q.scales.data(),
               .a_decode_scale = &decode,
               .d = codes.data(),
               .d_stride = kN / 2,
               .d_scales = scales.data(),
               .d_decode_scale = &between},
              m);
    std::vector<float> d(m * kK), again(m * kK);
    const GemmOperands last{.a = codes.data(),
                            .a_stride = kN / 2,
                            .a_scales = scales.data(),
                            .a_decode_scale = &between,
                            .d = d.data(),
                            .d_stride = kK};
    second.run(last, m);
    // The same scales in another order, through the plan that was told so.
    std::vector<uint8_t> in_rows(m * kN / 16);
    convert_scales(first.output_layout(m), ScaleLayout::kLinear, m, kN / 16, scales, in_rows);
    GemmOperands moved = last;
    moved.a_scales = in_rows.data();
    moved.d = again.data();
    linear.run(moved, m);
    EXPECT_EQ(d, again) << m;
    EXPECT_THAT(d, testing::Contains(testing::Ne(0.0f)));
  }
}

std::string plan_error(const GemmOptions& options, int64_t n = 64) {
  const Device device = Device::cpu(1);
  const RandomTensor w(WeightFormat::kNvfp4, n, 64);
  try {
    GemmPlan(prepare(w.tensor, device, ActivationMode::kFp4), device, options);
    return "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    return e.what();
  }
}

TEST(GemmPlan, RefusesQuantizedOperandsThatMakeNoSense) {
  constexpr auto kFp4 = ActivationMode::kFp4;
  EXPECT_EQ(plan_error({.a = DType::kU8, .activation = kFp4}), "no error");
  EXPECT_THAT(plan_error({.a = DType::kU8}), HasSubstr("need mode fp4 and 4-bit weights"));
  EXPECT_THAT(plan_error({.d = DType::kU8, .activation = kFp4, .add = true}),
              HasSubstr("can't be added to"));
  EXPECT_THAT(plan_error({.d = DType::kU8, .activation = kFp4}, 72),
              HasSubstr("a multiple of 16 to be quantized, found 72"));
  const Device device = Device::cpu(1);
  const RandomTensor w(WeightFormat::kNvfp4, 16, 64);
  const LinearWeight weight = prepare(w.tensor, device, kFp4);
  const GemmPlan reader(weight, device, {.a = DType::kU8, .activation = kFp4});
  const GemmPlan floats(weight, device, {.activation = kFp4});
  GemmOptions options{.activation = kFp4, .d_reader = &reader};
  EXPECT_THAT(plan_error(options), HasSubstr("d_reader is for a quantized D"));
  options.d = DType::kU8;
  EXPECT_EQ(plan_error(options), "no error");
  EXPECT_THAT(plan_error(options, 32), HasSubstr("activations of k = 32, found nvfp4 of k = 64"));
  options.max_m = 2;
  EXPECT_THAT(plan_error(options), HasSubstr("must take U8 and 2 rows, found U8 and 1"));
  options.max_m = 1;
  options.d_reader = &floats;
  EXPECT_THAT(plan_error(options), HasSubstr("must take U8 and 1 rows, found F32 and 1"));

  uint8_t codes[32] = {};
  float d[16];
  try {
    reader.run(codes, 32, d, 16, 1);
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("a_scales is null"));
  }
}

TEST(Prepare, NamesWhatIsWrong) {
  TinyWeight w;
  EXPECT_EQ(prepare_error(w.tensor), "no error");
  w.tensor.k = 24;
  EXPECT_EQ(prepare_error(w.tensor),
            "prepare: tiny: k must be a multiple of 16 for nvfp4, found 24");
  w.tensor.k = 16;
  w.tensor.scales = nullptr;
  EXPECT_EQ(prepare_error(w.tensor), "prepare: tiny: scales is null");
  w = TinyWeight();
  w.tensor.codes = w.codes.data();
  w.tensor.scales = w.scales.data();
  w.tensor.segments = {{0, 1.0f}, {2, 1.0f}};
  EXPECT_EQ(prepare_error(w.tensor), "prepare: tiny: segment 1 begins at row 2, expected 1 .. 1");
  w.tensor.segments.clear();
  EXPECT_EQ(prepare_error(w.tensor), "prepare: tiny: expected a segment that begins at row 0");
}

TEST(DefaultActivation, IsFp4WhereItIsNativeAndMeant) {
  DeviceInfo device;
  EXPECT_EQ(default_activation(device), ActivationMode::kInt8);
  device.kind = DeviceKind::kCuda;
  for (const int sm : {80, 86, 89, 90, 100, 103, 120, 121}) {
    device.sm = sm;
    EXPECT_EQ(default_activation(device), sm < 100 ? ActivationMode::k16Bit : ActivationMode::kFp4)
        << sm;
    EXPECT_EQ(default_activation(device, true), ActivationMode::k16Bit) << sm;
  }
}

TEST(ChooseGemm, SaysWhatEveryOtherImplementationLacks) {
  const Device device = Device::cpu(1);
  const KernelChoice choice = choose_gemm(WeightFormat::kNvfp4, 64, 64, 1, device, {});
  EXPECT_FALSE(choice.impl.empty());
  for (const std::string& refusal : choice.refusals) EXPECT_THAT(refusal, HasSubstr(": "));
}

}  // namespace
}  // namespace nibble
