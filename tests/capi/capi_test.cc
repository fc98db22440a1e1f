#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <vector>

#include "formats/scale_layout.h"
#include "nibble/nibble.h"

namespace nibble {
namespace {

using testing::HasSubstr;
using testing::StrEq;

template <class T, void (*kFree)(T*)>
struct Freer {
  void operator()(T* handle) const { kFree(handle); }
};
using DevicePtr = std::unique_ptr<nibble_device, Freer<nibble_device, nibble_device_free>>;
using WeightPtr = std::unique_ptr<nibble_weight, Freer<nibble_weight, nibble_weight_free>>;
using GemmPtr = std::unique_ptr<nibble_gemm, Freer<nibble_gemm, nibble_gemm_free>>;

DevicePtr cpu() {
  nibble_device* device = nullptr;
  EXPECT_EQ(nibble_device_create_cpu(1, &device), NIBBLE_OK) << nibble_last_error();
  return DevicePtr(device);
}

// [2, 16]: row 0 all ones (code 2) at scale 1 (0x38), row 1 all twos (code 4) at scale 0.5; the
// rows' global scales are 2 and 10.
struct TinyWeight {
  uint8_t codes[16] = {0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22,
                       0x44, 0x44, 0x44, 0x44, 0x44, 0x44, 0x44, 0x44};
  uint8_t scales[2] = {0x38, 0x30};
  int64_t begin[2] = {0, 1};
  float decode[2] = {2, 10};
  nibble_weight_desc desc = {};
  TinyWeight() {
    desc.format = NIBBLE_NVFP4;
    desc.n = 2;
    desc.k = 16;
    desc.codes = codes;
    desc.scales = scales;
    desc.num_segments = 2;
    desc.segment_begin = begin;
    desc.decode_scales = decode;
  }
};

WeightPtr prepare_16bit(const TinyWeight& tiny, const nibble_device* device) {
  nibble_weight* weight = nullptr;
  EXPECT_EQ(nibble_weight_create(&tiny.desc, device, NIBBLE_ACTIVATION_16BIT, &weight), NIBBLE_OK)
      << nibble_last_error();
  return WeightPtr(weight);
}

nibble_gemm_options options_16bit(int64_t max_m) {
  nibble_gemm_options options = {};
  options.max_m = max_m;
  options.activation = NIBBLE_ACTIVATION_16BIT;
  return options;
}

TEST(CApi, MultipliesAfterEverythingElseIsGone) {
  GemmPtr gemm;
  {
    const DevicePtr device = cpu();
    const auto tiny = std::make_unique<TinyWeight>();
    const WeightPtr weight = prepare_16bit(*tiny, device.get());
    EXPECT_GE(nibble_weight_bytes(weight.get()), 18u);
    const nibble_gemm_options options = options_16bit(3);
    nibble_gemm* made = nullptr;
    ASSERT_EQ(nibble_gemm_create(weight.get(), device.get(), &options, &made), NIBBLE_OK)
        << nibble_last_error();
    gemm.reset(made);
  }
  const std::vector<float> a(3 * 20, 0.25f);
  std::vector<float> d(3 * 2, NAN);
  ASSERT_EQ(nibble_gemm_run(gemm.get(), a.data(), 20, d.data(), 0, 3), NIBBLE_OK)
      << nibble_last_error();
  EXPECT_THAT(d, testing::Each(testing::AnyOf(16 * 0.25f * 2, 16 * 0.25f * 10)));
  EXPECT_EQ(d[4], 8);
  EXPECT_EQ(d[5], 40);
  EXPECT_THAT(nibble_gemm_kernel(gemm.get(), 1), HasSubstr("gemm"));
  EXPECT_EQ(nibble_gemm_kernel(gemm.get(), 4), nullptr);
}

// y = (2 sum a, 10 sum a) + bias; of gate and up, silu(y0) y1.
TEST(CApi, AddsABiasAndMultipliesGateAndUp) {
  const DevicePtr device = cpu();
  TinyWeight tiny;
  const float bias[2] = {0.25f, -3.0f};
  std::vector<float> a(16, 0.125f);
  nibble_gemm_options options = options_16bit(1);
  options.bias = bias;
  for (const int gate_up : {0, 1}) {
    tiny.desc.gate_up = gate_up;
    const WeightPtr weight = prepare_16bit(tiny, device.get());
    nibble_gemm* made = nullptr;
    ASSERT_EQ(nibble_gemm_create(weight.get(), device.get(), &options, &made), NIBBLE_OK)
        << nibble_last_error();
    const GemmPtr gemm(made);
    float d[2] = {-1, -1};
    ASSERT_EQ(nibble_gemm_run(gemm.get(), a.data(), 0, d, 0, 1), NIBBLE_OK) << nibble_last_error();
    const double gate = 2 * 2.0 + 0.25, up = 10 * 2.0 - 3;
    if (gate_up == 0) {
      EXPECT_FLOAT_EQ(d[0], static_cast<float>(gate));
      EXPECT_FLOAT_EQ(d[1], static_cast<float>(up));
    } else {
      EXPECT_FLOAT_EQ(d[0], static_cast<float>(gate / (1 + std::exp(-gate)) * up));
      EXPECT_EQ(d[1], -1);  // one column only
    }
  }
}

TEST(CApi, QuantizesWithAComputedAndWithAGivenScale) {
  const DevicePtr device = cpu();
  std::vector<float> x(2 * 32);
  for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(0.3f * static_cast<float>(i));
  for (const nibble_scale_layout layout :
       {NIBBLE_LINEAR, NIBBLE_SWIZZLED_128X4, NIBBLE_SWIZZLED_8X4}) {
    const size_t bytes = nibble_scale_bytes(NIBBLE_NVFP4, layout, 2, 32);
    EXPECT_EQ(bytes, static_cast<size_t>(scale_bytes(static_cast<ScaleLayout>(layout), 2, 2)));
    std::vector<uint8_t> codes[2], scales[2];
    float decode_scale = 0;
    for (int given = 0; given < 2; ++given) {
      codes[given].assign(32, 0xee);
      scales[given].assign(bytes + 1, 0xee);
      nibble_quantize_args args = {};
      args.format = NIBBLE_NVFP4;
      args.layout = layout;
      args.src_type = NIBBLE_F32;
      args.src = x.data();
      args.m = 2;
      args.k = 32;
      args.decode_scale = &decode_scale;
      args.compute_decode_scale = !given;
      args.codes = codes[given].data();
      args.scales = scales[given].data();
      ASSERT_EQ(nibble_quantize(&args, device.get()), NIBBLE_OK) << nibble_last_error();
      EXPECT_EQ(scales[given].back(), 0xee);
    }
    EXPECT_NEAR(decode_scale, 1.0f / (448 * 6), 0.01f / (448 * 6));
    EXPECT_EQ(codes[0], codes[1]);
    EXPECT_EQ(scales[0], scales[1]);
    EXPECT_EQ(codes[0][0] & 15, 0);  // sin 0
    EXPECT_NE(codes[0][15], 0xee);
  }
}

// Experts and a fused input against calls of their own for what they stand for.
TEST(CApi, QuantizesWhatALayerDoesJustBefore) {
  const DevicePtr device = cpu();
  std::vector<float> x(4 * 32), product(4 * 16), decode_scales(2), alone(2);
  for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(0.7f * static_cast<float>(i));
  for (size_t i = 0; i < product.size(); ++i) {
    const double gate = x[i / 16 * 32 + i % 16], up = x[i / 16 * 32 + 16 + i % 16];
    product[i] = static_cast<float>(gate / (1 + std::exp(-gate)) * up);
  }
  std::vector<uint8_t> codes(4 * 8), scales(4), expected_codes(4 * 8), expected_scales(4);
  const int32_t offsets[] = {0, 1, 4};
  nibble_quantize_args args = {};
  args.format = NIBBLE_NVFP4;
  args.src_type = NIBBLE_F32;
  args.k = 16;
  args.compute_decode_scale = 1;
  for (int e = 0; e < 2; ++e) {
    args.src = product.data() + offsets[e] * 16;
    args.m = offsets[e + 1] - offsets[e];
    args.decode_scale = &alone[e];
    args.codes = expected_codes.data() + offsets[e] * 8;
    args.scales = expected_scales.data() + offsets[e];
    ASSERT_EQ(nibble_quantize(&args, device.get()), NIBBLE_OK) << nibble_last_error();
  }
  args.src = product.data();
  args.m = 4;
  args.decode_scale = decode_scales.data();
  args.codes = codes.data();
  args.scales = scales.data();
  args.experts = 2;
  args.expert_offsets = offsets;
  ASSERT_EQ(nibble_quantize(&args, device.get()), NIBBLE_OK) << nibble_last_error();
  EXPECT_EQ(decode_scales, alone);
  EXPECT_EQ(codes, expected_codes);
  EXPECT_EQ(scales, expected_scales);

  args.src = x.data();
  args.input = NIBBLE_INPUT_SILU_MUL;
  EXPECT_EQ(nibble_quantize(&args, device.get()), NIBBLE_INVALID_ARGUMENT);
  EXPECT_THAT(nibble_last_error(), HasSubstr("silu_mul and rms_norm must be given"));
  args.compute_decode_scale = 0;
  codes.assign(codes.size(), 0xee);
  ASSERT_EQ(nibble_quantize(&args, device.get()), NIBBLE_OK) << nibble_last_error();
  EXPECT_EQ(codes, expected_codes);
  EXPECT_EQ(scales, expected_scales);

  args.input = static_cast<nibble_quantize_input>(3);
  EXPECT_EQ(nibble_quantize(&args, device.get()), NIBBLE_INVALID_ARGUMENT);
  EXPECT_THAT(nibble_last_error(), HasSubstr("nibble_quantize_input"));
}

// All of A is 0.5: code 2 (one) at scale 0.5 (0x30), times a decode scale of 1.
TEST(CApi, MultipliesQuantizedActivationsIntoAQuantizedOutput) {
  const DevicePtr device = cpu();
  constexpr int64_t kN = 16, kK = 64;
  std::vector<uint8_t> codes(kN * kK / 2, 0x22), scales(kN * kK / 16, 0x38);
  const float one = 1, decode = 1;
  nibble_weight_desc desc = {};
  desc.format = NIBBLE_NVFP4;
  desc.n = kN;
  desc.k = kK;
  desc.codes = codes.data();
  desc.scales = scales.data();
  desc.decode_scales = &one;
  nibble_weight* w = nullptr;
  ASSERT_EQ(nibble_weight_create(&desc, device.get(), NIBBLE_ACTIVATION_FP4, &w), NIBBLE_OK);
  const WeightPtr weight(w);
  nibble_gemm_options options = {};
  options.max_m = 33;
  options.a_type = options.d_type = NIBBLE_FP4;
  options.activation = NIBBLE_ACTIVATION_FP4;
  const nibble_scale_layout linear = NIBBLE_LINEAR;
  options.d_layout = &linear;
  nibble_gemm* g = nullptr;
  ASSERT_EQ(nibble_gemm_create(w, device.get(), &options, &g), NIBBLE_OK) << nibble_last_error();
  const GemmPtr gemm(g);
  nibble_scale_layout a_layout, d_layout;
  ASSERT_EQ(nibble_gemm_layouts(g, 33, &a_layout, &d_layout), NIBBLE_OK);
  EXPECT_EQ(a_layout, NIBBLE_SWIZZLED_128X4);
  ASSERT_EQ(nibble_gemm_layouts(g, 2, &a_layout, nullptr), NIBBLE_OK);
  EXPECT_EQ(a_layout, NIBBLE_SWIZZLED_8X4);
  EXPECT_EQ(d_layout, NIBBLE_LINEAR);

  const std::vector<uint8_t> a(2 * kK / 2, 0x22), in_rows(2 * kK / 16, 0x30);
  std::vector<uint8_t> a_scales(nibble_scale_bytes(NIBBLE_NVFP4, a_layout, 2, kK), 0xFF);
  ASSERT_EQ(nibble_convert_scales(NIBBLE_NVFP4, NIBBLE_LINEAR, a_layout, 2, kK, in_rows.data(),
                                  a_scales.data()),
            NIBBLE_OK)
      << nibble_last_error();
  std::vector<uint8_t> d(2 * kN / 2), d_scales(2);
  nibble_gemm_operands o = {};
  o.a = a.data();
  o.a_scales = a_scales.data();
  o.a_decode_scale = &one;
  o.d = d.data();
  o.d_scales = d_scales.data();
  EXPECT_EQ(nibble_gemm_run_fp4(g, &o, 2), NIBBLE_INVALID_ARGUMENT);
  EXPECT_THAT(nibble_last_error(), HasSubstr("d_decode_scale is null"));
  o.d_decode_scale = &decode;
  ASSERT_EQ(nibble_gemm_run_fp4(g, &o, 2), NIBBLE_OK) << nibble_last_error();
  // Sums of 32: six (code 7) at the scale nearest 32 / 6 in e4m3, which is 5.5 (0x4B).
  EXPECT_THAT(d, testing::Each(0x77));
  EXPECT_THAT(d_scales, testing::Each(0x4B));
  EXPECT_EQ(nibble_gemm_layouts(g, 34, &a_layout, nullptr), NIBBLE_INVALID_ARGUMENT);
  EXPECT_EQ(
      nibble_convert_scales(NIBBLE_NVFP4, NIBBLE_LINEAR, NIBBLE_LINEAR, 1, 17, a.data(), d.data()),
      NIBBLE_INVALID_ARGUMENT);
}

TEST(CApi, NamesTheArgumentThatIsWrong) {
  const DevicePtr device = cpu();
  const auto expect = [](nibble_status found, nibble_status expected, const char* words) {
    EXPECT_EQ(found, expected);
    EXPECT_THAT(nibble_last_error(), HasSubstr(words));
  };
  expect(nibble_device_create_cpu(1, nullptr), NIBBLE_INVALID_ARGUMENT, "device is null");
  expect(nibble_quantize(nullptr, device.get()), NIBBLE_INVALID_ARGUMENT, "args is null");

  nibble_quantize_args q = {};
  expect(nibble_quantize(&q, nullptr), NIBBLE_INVALID_ARGUMENT, "device is null");
  expect(nibble_quantize(&q, device.get()), NIBBLE_INVALID_ARGUMENT, "format");
  q.format = NIBBLE_NVFP4;
  q.layout = static_cast<nibble_scale_layout>(3);
  expect(nibble_quantize(&q, device.get()), NIBBLE_INVALID_ARGUMENT, "layout");
  q.layout = NIBBLE_LINEAR;
  expect(nibble_quantize(&q, device.get()), NIBBLE_INVALID_ARGUMENT, "decode_scale is null");
  q.format = NIBBLE_MXFP4;
  q.m = 1;
  q.k = 48;
  expect(nibble_quantize(&q, device.get()), NIBBLE_INVALID_ARGUMENT, "multiple of 32");
  EXPECT_EQ(nibble_scale_bytes(NIBBLE_MXFP4, NIBBLE_LINEAR, 1, 48), 0u);

  TinyWeight tiny;
  nibble_weight* weight = nullptr;
  const auto prepare = [&] {
    return nibble_weight_create(&tiny.desc, device.get(), NIBBLE_ACTIVATION_DEFAULT, &weight);
  };
  tiny.desc.k = 24;
  expect(prepare(), NIBBLE_INVALID_ARGUMENT, "multiple of 16");
  tiny.desc.k = INT64_MAX / 2;
  expect(prepare(), NIBBLE_INVALID_ARGUMENT, "2^31 - 1");
  tiny.desc.k = 16;
  tiny.begin[1] = 2;
  expect(prepare(), NIBBLE_INVALID_ARGUMENT, "segment 1 begins at row 2");
  tiny.desc.segment_begin = nullptr;
  expect(prepare(), NIBBLE_INVALID_ARGUMENT, "segment_begin is null");
  tiny.desc.num_segments = -1;
  expect(prepare(), NIBBLE_INVALID_ARGUMENT, "num_segments");
  tiny.desc.decode_scales = nullptr;
  tiny.desc.num_segments = 1;
  expect(prepare(), NIBBLE_INVALID_ARGUMENT, "decode_scales is null");
  EXPECT_EQ(weight, nullptr);

  const WeightPtr good = prepare_16bit(TinyWeight(), device.get());
  nibble_gemm* gemm = nullptr;
  nibble_gemm_options options = options_16bit(-1);
  expect(nibble_gemm_create(good.get(), device.get(), &options, &gemm), NIBBLE_INVALID_ARGUMENT,
         "max_m");
  options.a_type = static_cast<nibble_dtype>(7);
  expect(nibble_gemm_create(good.get(), device.get(), &options, &gemm), NIBBLE_INVALID_ARGUMENT,
         "a_type");
  EXPECT_EQ(gemm, nullptr);
  options = options_16bit(2);
  ASSERT_EQ(nibble_gemm_create(good.get(), device.get(), &options, &gemm), NIBBLE_OK);
  const GemmPtr owner(gemm);
  float a[32] = {}, d[4];
  expect(nibble_gemm_run(gemm, a, 0, d, 0, 3), NIBBLE_INVALID_ARGUMENT, "m must be 1 .. 2");
  expect(nibble_gemm_run(gemm, nullptr, 0, d, 0, 1), NIBBLE_INVALID_ARGUMENT, "a is null");
  expect(nibble_gemm_run(gemm, a, 8, d, 0, 2), NIBBLE_INVALID_ARGUMENT, "8 elements apart");
}

TEST(CApi, TakesNullWhereFreeDoes) {
  nibble_device_free(nullptr);
  nibble_weight_free(nullptr);
  nibble_gemm_free(nullptr);
  EXPECT_EQ(nibble_weight_bytes(nullptr), 0u);
  EXPECT_EQ(nibble_device_stream(cpu().get()), nullptr);
}

TEST(CApi, SaysWhyThereIsNoGpu) {
  nibble_device* device = nullptr;
  const nibble_status status = nibble_device_create_cuda(1000, &device);
  EXPECT_EQ(status, NIBBLE_DEVICE);
  EXPECT_EQ(device, nullptr);
  EXPECT_THAT(nibble_last_error(), testing::Not(StrEq("")));
}

}  // namespace
}  // namespace nibble
