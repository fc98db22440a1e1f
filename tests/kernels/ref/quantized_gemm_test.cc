// The oracle with operands that are quantized already: activations in every layout of scales, and D
// as NVFP4. Both must be what the quantizer in front or behind would give.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "formats/float16.h"
#include "formats/mxfp4.h"
#include "formats/nvfp4.h"
#include "formats/scale_layout.h"
#include "kernels/ref/gemm.h"
#include "nibble/error.h"

namespace nibble {
namespace {

constexpr int64_t kM = 5, kN = 48, kK = 96;
constexpr ScaleLayout kLayouts[] = {ScaleLayout::kLinear, ScaleLayout::kSwizzled128x4,
                                    ScaleLayout::kSwizzled8x4};

struct Operands {
  WeightTensor tensor;
  std::vector<uint8_t> codes, scales;
  PreparedWeight weight;
  std::vector<float> a;
  const float decode;

  explicit Operands(WeightFormat format) : a(kM * kK), decode(0.02f) {
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    codes.resize(kN * kK / 2);
    scales.resize(kN * kK / block_size(format));
    for (uint8_t& c : codes) c = static_cast<uint8_t>(random());
    for (uint8_t& s : scales) s = static_cast<uint8_t>(0x30 + random() % 16);
    for (float& x : a) x = normal(random);
    tensor.format = format;
    tensor.n = kN;
    tensor.k = kK;
    tensor.codes = codes.data();
    tensor.scales = scales.data();
    tensor.segments = {{0, 0.5f}};
    tensor.input_decode_scale = decode;
    weight = prepare_canonical(tensor);
  }
  GemmArgs args() const {
    GemmArgs args;
    args.desc = {
        .m = kM, .n = kN, .k = kK, .weight = tensor.format, .activation = ActivationMode::kFp4};
    args.b = &weight;
    args.a = {const_cast<float*>(a.data()), DType::kF32, kM, kK, kK};
    return args;
  }
};

void run(const GemmArgs& args) {
  validate(args);
  DeviceInfo cpu;
  const Support s = ref::kGemm.can_implement(args.desc, cpu);
  ASSERT_TRUE(s) << s.reason;
  const Device device = Device::cpu(1);
  ref::kGemm.launch(args, {}, device.stream());
}

std::vector<uint8_t> run_into(GemmArgs args, DType type) {
  std::vector<uint8_t> d(kM * kN * size_of(type), 0xFF);
  args.desc.d_type = type;
  args.d = {d.data(), type, kM, kN, kN};
  run(args);
  return d;
}

TEST(QuantizedGemm, GivenActivationsAreThoseItWouldMake) {
  for (const WeightFormat format : {WeightFormat::kNvfp4, WeightFormat::kMxfp4}) {
    const Operands o(format);
    const int64_t block = block_size(format), columns = kK / block;
    const auto want = run_into(o.args(), DType::kF32);
    for (const ScaleLayout layout : kLayouts) {
      std::vector<uint8_t> codes(kM * kK / 2);
      std::vector<uint8_t> scales(scale_bytes(layout, kM, columns), 0xFF);
      for (int64_t i = 0; i < kM * columns; ++i) {
        uint8_t* const to = &codes[i * block / 2];
        scales[scale_offset(layout, i / columns, i % columns, columns)] =
            format == WeightFormat::kMxfp4
                ? quantize_mxfp4_block(&o.a[i * block], Mxfp4ScaleRule::kCeil, to)
                : quantize_nvfp4_block(&o.a[i * block], 1.0f / o.decode, to);
      }
      GemmArgs args = o.args();
      args.desc.a_type = DType::kU8;
      args.desc.a_layout = layout;
      args.a = {codes.data(), DType::kU8, kM, kK / 2, kK / 2};
      args.a_scales = scales.data();
      args.a_decode_scale = &o.decode;
      EXPECT_EQ(run_into(args, DType::kF32), want) << to_string(layout);
    }
  }
}

TEST(QuantizedGemm, QuantizedOutputIsTheQuantizedBf16) {
  const Operands o(WeightFormat::kNvfp4);
  const auto plain = run_into(o.args(), DType::kBF16);
  const float decode = 0.25f;
  for (const ScaleLayout layout : kLayouts) {
    GemmArgs args = o.args();
    std::vector<uint8_t> codes(kM * kN / 2), want_codes(kM * kN / 2);
    std::vector<uint8_t> scales(scale_bytes(layout, kM, kN / 16), 0xFF), want(scales.size(), 0);
    args.desc.d_type = DType::kU8;
    args.desc.d_layout = layout;
    args.d = {codes.data(), DType::kU8, kM, kN / 2, kN / 2};
    args.d_scales = scales.data();
    args.d_decode_scale = &decode;
    run(args);
    for (int64_t i = 0; i < kM * kN; i += 16) {
      float x[16];
      for (int e = 0; e < 16; ++e) {
        uint16_t bits;
        std::memcpy(&bits, &plain[(i + e) * 2], 2);
        x[e] = bf16_to_float(bits);
      }
      want[scale_offset(layout, i / kN, i % kN / 16, kN / 16)] =
          quantize_nvfp4_block(x, 1.0f / decode, &want_codes[i / 2]);
    }
    EXPECT_EQ(codes, want_codes);
    EXPECT_EQ(scales, want) << to_string(layout);
  }
}

std::string refusal(const GemmArgs& args) {
  try {
    validate(args);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    return e.what();
  }
  return "";
}

TEST(QuantizedGemm, WhatIsMissingOrDoesNotFitIsNamed) {
  using testing::HasSubstr;
  const Operands o(WeightFormat::kNvfp4);
  std::vector<uint8_t> bytes(kM * kK);
  std::vector<float> d(kM * kN);
  GemmArgs args = o.args();
  args.d = {d.data(), DType::kF32, kM, kN, kN};
  args.desc.a_type = DType::kU8;
  args.a = {bytes.data(), DType::kU8, kM, kK, kK};
  EXPECT_THAT(refusal(args), HasSubstr("a must be [5, 48], found [5, 96]"));
  args.a = {bytes.data(), DType::kU8, kM, kK / 2, kK / 2};
  EXPECT_THAT(refusal(args), HasSubstr("a_scales is null"));
  args.a_scales = bytes.data();
  EXPECT_THAT(refusal(args), HasSubstr("a_decode_scale is null"));
  args.a_decode_scale = &o.decode;
  EXPECT_EQ(refusal(args), "");
  args.desc.activation = ActivationMode::k16Bit;
  EXPECT_THAT(refusal(args), HasSubstr("are for mode fp4, found 16bit"));
  args.desc.activation = ActivationMode::kFp4;

  args.desc.d_type = DType::kU8;
  args.d = {bytes.data(), DType::kU8, kM, kN / 2, kN / 2};
  EXPECT_THAT(refusal(args), HasSubstr("d_scales is null"));
  args.d_scales = bytes.data();
  EXPECT_THAT(refusal(args), HasSubstr("d_decode_scale is null"));
  args.d_decode_scale = &o.decode;
  EXPECT_EQ(refusal(args), "");
  args.desc.has_c = true;
  EXPECT_THAT(refusal(args), HasSubstr("goes without C"));
}

}  // namespace
}  // namespace nibble
