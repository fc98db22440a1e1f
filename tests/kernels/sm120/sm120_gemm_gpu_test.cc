// The sm_120 GEMM on an H200, its one instruction emulated: the case table, and the bits of every
// tile in every way to hand activations over and D back. Skipped on other machines.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <optional>
#include <random>
#include <vector>

#include "cases/inputs.h"
#include "cases/runner.h"
#include "formats/float16.h"
#include "formats/mxfp4.h"
#include "formats/nvfp4.h"
#include "formats/scale_layout.h"
#include "kernels/sm120/emulated.h"
#include "nibble/error.h"

namespace nibble::sm120 {
namespace {

using cases::GuardedBuffer;

std::optional<Device> hopper() {
  try {
    Device device = Device::cuda();
    if (device.info().sm == 90) return device;
  } catch (const Error&) {
  }
  return std::nullopt;
}

const GemmImpl& gemm() { return emulated_kernels().gemm[0]; }

TEST(Sm120Gemm, AgreesWithTheReferenceOverTheCaseTable) {
  const std::optional<Device> device = hopper();
  if (!device) GTEST_SKIP() << "needs an H100 or H200";
  int passed = 0;
  const auto sink = [&](const CaseResult& r) {
    EXPECT_NE(r.status, CaseResult::Status::kFailed) << r.case_id << ": " << r.detail;
    if (r.status == CaseResult::Status::kPassed) ++passed;
  };
  cases::run_gemm_cases(*device, gemm().name, sink, emulated_kernels());
  EXPECT_GE(passed, 5);
  std::printf("%d cases passed\n", passed);
}

struct Shape {
  int64_t m, n, k;
};

constexpr ScaleLayout kLayouts[] = {ScaleLayout::kLinear, ScaleLayout::kSwizzled128x4,
                                    ScaleLayout::kSwizzled8x4};

// Weights and quantized activations of one shape, and the sums that any order of k is made of.
struct Problem {
  WeightFormat format;
  Shape shape;
  int64_t block;         // of k
  std::vector<float> a;  // bf16 values
  float a_decode;
  std::vector<uint8_t> codes;
  std::vector<uint8_t> block_scales;  // kLinear
  std::vector<float> bias;
  cases::RandomWeight weight;
  std::vector<float> terms;  // [m][n][k / block]: products of a block of k, scaled, exact

  Problem(WeightFormat f, const Shape& s, bool gate_up, std::mt19937&& random)
      : format(f),
        shape(s),
        block(block_size(f)),
        a(cases::random_values(s.m * s.k, random)),
        a_decode(f == WeightFormat::kNvfp4 ? 0.02f : 1.0f),
        codes(s.m * s.k / 2),
        block_scales(s.m * s.k / block),
        bias(cases::random_values(s.n, random)),
        weight(f, s.n, s.k, s.n > 2 ? 3 : 1, random) {
    weight.tensor.gate_up = gate_up;
    if (f == WeightFormat::kNvfp4) weight.tensor.input_decode_scale = a_decode;
    // What the fast paths of the quantizer do not take.
    a[0] = INFINITY;
    a[s.k - 1] = 1e30f;
    for (int64_t i = 0; i < s.k && i < 16; ++i) a[(s.m - 1) * s.k + i] = 0.0f;
    for (float& x : a) x = bf16_to_float(float_to_bf16(x));
    for (int64_t i = 0; i < s.m * s.k; i += block) {
      uint8_t* const to = &codes[i / 2];
      block_scales[i / block] = format == WeightFormat::kMxfp4
                                    ? quantize_mxfp4_block(&a[i], Mxfp4ScaleRule::kCeil, to)
                                    : quantize_nvfp4_block(&a[i], 1.0f / a_decode, to);
    }
    make_terms();
  }

  void make_terms() {
    const int64_t blocks = shape.k / block;
    const auto widen = [&](const uint8_t* from, int64_t rows) {
      std::vector<float> values(rows * shape.k);
      for (int64_t i = 0; i < rows * shape.k; ++i) {
        values[i] = e2m1_to_float(static_cast<uint8_t>(from[i / 2] >> (i % 2 * 4) & 15));
      }
      return values;
    };
    const auto scale_of = [&](uint8_t scale) {
      return format == WeightFormat::kMxfp4 ? ue8m0_to_float(scale) : e4m3_to_float(scale);
    };
    const auto x = widen(codes.data(), shape.m);
    const auto w = widen(weight.tensor.codes, shape.n);
    terms.resize(shape.m * shape.n * blocks);
    for (int64_t i = 0; i < shape.m; ++i) {
      for (int64_t j = 0; j < shape.n; ++j) {
        for (int64_t b = 0; b < blocks; ++b) {
          float sum = 0;  // exact
          for (int64_t k = b * block; k < (b + 1) * block; ++k) {
            sum += x[i * shape.k + k] * w[j * shape.k + k];
          }
          terms[(i * shape.n + j) * blocks + b] = sum *
                                                  scale_of(weight.tensor.scales[j * blocks + b]) *
                                                  scale_of(block_scales[i * blocks + b]);
        }
      }
    }
  }

  // fp32 in the kernel's order: warps take 128 of k in turns, then warps, then parts are added.
  float value(int64_t i, int64_t j, const KernelConfig& config) const {
    const int64_t all = (shape.k + 127) / 128, blocks = shape.k / block, in_128 = 128 / block;
    const int64_t split = std::min<int64_t>(config.split_k, all), warps = config.tile_k / 128;
    const float* const own = &terms[(i * shape.n + j) * blocks];
    float total = 0;
    for (int64_t part = 0; part < split; ++part) {
      const int64_t begin = all * part / split, end = all * (part + 1) / split;
      float of_part = 0;
      for (int64_t warp = 0; warp < warps; ++warp) {
        float sum = 0;
        for (int64_t kb = begin + warp; kb < end; kb += warps) {
          for (int64_t b = kb * in_128; b < std::min((kb + 1) * in_128, blocks); ++b) sum += own[b];
        }
        of_part += sum;
      }
      total += of_part;
    }
    float alpha = 1;
    for (const auto& s : weight.tensor.segments) {
      if (s.row_begin <= j) alpha = s.global_decode_scale;
    }
    return std::fmaf(total, alpha * a_decode, bias[j]);
  }
};

// One launch's operands in device memory.
class Call {
 public:
  Call(const Problem& problem, const PreparedWeight& weight, const Device& device)
      : problem_(problem), device_(device), inputs_(device) {
    const auto& [m, n, k] = problem.shape;
    args.desc = {.m = m,
                 .n = n,
                 .k = k,
                 .weight = problem.format,
                 .layout = WeightLayout::kSm120,
                 .activation = ActivationMode::kFp4,
                 .has_bias = true,
                 .silu_mul = problem.weight.tensor.gate_up};
    args.b = &weight;
    args.bias = inputs_(problem.bias);
  }

  // Padding between and behind the scales is full of NaN.
  void give_quantized(ScaleLayout layout) {
    const auto& [m, n, k] = problem_.shape;
    const int64_t columns = k / problem_.block;
    std::vector<uint8_t> scales(scale_bytes(layout, m, columns) + 4, 0xFF);
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < columns; ++j) {
        scales[scale_offset(layout, i, j, columns)] = problem_.block_scales[i * columns + j];
      }
    }
    args.desc.a_type = DType::kU8;
    args.desc.a_layout = layout;
    args.a = {inputs_(problem_.codes), DType::kU8, m, k / 2, k / 2};
    args.a_scales = inputs_(scales);
    args.a_decode_scale = inputs_(std::vector<float>{problem_.a_decode});
  }
  void give(DType type, int64_t gap) {
    const auto& [m, n, k] = problem_.shape;
    const int64_t stride = k + gap;
    std::vector<float> wide(m * stride, NAN);
    std::vector<uint16_t> narrow(m * stride, 0x7FFF);
    for (int64_t i = 0; i < m * k; ++i) {
      wide[i / k * stride + i % k] = problem_.a[i];
      narrow[i / k * stride + i % k] = float_to_bf16(problem_.a[i]);
    }
    args.desc.a_type = type;
    void* const data = type == DType::kF32 ? static_cast<void*>(inputs_(wide)) : inputs_(narrow);
    args.a = {data, type, m, k, stride};
  }

  std::vector<uint8_t> launch(DType type, const KernelConfig& config) {
    const int64_t columns = args.desc.columns();
    args.desc.d_type = type;
    const int64_t width = type == DType::kU8 ? columns / 2 : columns;
    GuardedBuffer d(static_cast<size_t>(args.desc.m * width) * size_of(type), device_);
    const auto scale_size = type == DType::kU8
                                ? scale_bytes(args.desc.d_layout, args.desc.m, columns / 16)
                                : int64_t{1};
    GuardedBuffer scales(static_cast<size_t>(scale_size), device_);
    GuardedBuffer workspace(gemm().workspace_bytes(args.desc, config, device_.info()), device_);
    for (GuardedBuffer* b : {&d, &scales, &workspace}) {
      b->poison();
      b->upload();
    }
    args.d = {d.data(), type, args.desc.m, width, width};
    args.d_scales = scales.data();
    args.d_decode_scale = inputs_(std::vector<float>{kOutputDecode});
    args.workspace = workspace.data();
    validate(args);
    const Support s = gemm().can_implement(args.desc, device_.info());
    EXPECT_TRUE(s) << s.reason;
    gemm().launch(args, config, device_.stream());
    device_.synchronize();
    for (GuardedBuffer* b : {&d, &scales, &workspace}) {
      b->download();
      EXPECT_TRUE(b->guards_hold());
    }
    std::vector<uint8_t> out(d.bytes().begin(), d.bytes().end());
    if (type == DType::kU8) out.insert(out.end(), scales.bytes().begin(), scales.bytes().end());
    return out;
  }

  static constexpr float kOutputDecode = 0.5f;
  GemmArgs args;

 private:
  const Problem& problem_;
  Device device_;
  cases::Inputs inputs_;
};

class Sm120Tiles : public testing::TestWithParam<std::tuple<WeightFormat, Shape>> {
 protected:
  void SetUp() override {
    device_ = hopper();
    if (!device_) GTEST_SKIP() << "needs an H100 or H200";
  }
  Problem problem(bool gate_up = false) const {
    const auto& [format, s] = GetParam();
    return Problem(format, s, gate_up, std::mt19937(static_cast<uint32_t>(s.m * 7 + s.n + s.k)));
  }
  PreparedWeight prepare(const Problem& p) const {
    const WeightLayoutImpl& layout = emulated_kernels().weight_layout[0];
    EXPECT_TRUE(layout.can_prepare(p.weight.tensor, device_->info()));
    return layout.prepare(p.weight.tensor, device_->stream());
  }
  std::optional<Device> device_;
};

// bit for bit, in every layout of scales and every tile
TEST_P(Sm120Tiles, GivenActivationsGiveTheBitsOfTheTilesOrder) {
  const Problem p = problem();
  const PreparedWeight weight = prepare(p);
  for (const ScaleLayout layout : kLayouts) {
    Call run(p, weight, *device_);
    run.give_quantized(layout);
    for (const KernelConfig& config : gemm().candidates(run.args.desc, device_->info())) {
      const auto found = run.launch(DType::kF32, config);
      int wrong = 0;
      for (int64_t i = 0; i < p.shape.m * p.shape.n && wrong < 3; ++i) {
        float got;
        std::memcpy(&got, &found[i * 4], 4);
        const float want = p.value(i / p.shape.n, i % p.shape.n, config);
        if (std::memcmp(&got, &want, 4) == 0 || (std::isnan(got) && std::isnan(want))) continue;
        ++wrong;
        ADD_FAILURE() << to_string(layout) << " " << to_string(config) << " [" << i / p.shape.n
                      << ", " << i % p.shape.n << "] " << got << ", expected " << want;
      }
      ASSERT_EQ(wrong, 0);
    }
  }
}

// Quantized by the GEMM's own blocks or by the op in front: the same bits either way.
TEST_P(Sm120Tiles, QuantizingOnTheWayChangesNothing) {
  const Problem p = problem();
  const PreparedWeight weight = prepare(p);
  Call given(p, weight, *device_), wide(p, weight, *device_);
  given.give_quantized(ScaleLayout::kSwizzled8x4);
  for (const auto& [type, gap] :
       {std::pair{DType::kBF16, 8}, {DType::kBF16, 3}, {DType::kF32, 4}}) {
    wide.give(type, gap);
    for (const KernelConfig& config : gemm().candidates(wide.args.desc, device_->info())) {
      ASSERT_EQ(wide.launch(DType::kBF16, config), given.launch(DType::kBF16, config))
          << to_string(type) << " " << to_string(config);
    }
  }
}

// D as NVFP4 is D as bf16, quantized; padding is zero.
TEST_P(Sm120Tiles, QuantizedOutputIsTheQuantizedBf16) {
  for (const bool silu_mul : {false, true}) {
    const Shape s = std::get<1>(GetParam());
    if (s.n % (silu_mul ? 32 : 16) != 0) continue;
    const Problem p = problem(silu_mul);
    const PreparedWeight weight = prepare(p);
    for (const ScaleLayout layout : kLayouts) {
      Call run(p, weight, *device_);
      run.give_quantized(ScaleLayout::kLinear);
      run.args.desc.d_layout = layout;
      run.args.desc.d_type = DType::kU8;
      const int64_t columns = run.args.desc.columns();
      for (const KernelConfig& config : gemm().candidates(run.args.desc, device_->info())) {
        const auto plain = run.launch(DType::kBF16, config);
        const auto quantized = run.launch(DType::kU8, config);
        std::vector<uint8_t> want(s.m * columns / 2 + scale_bytes(layout, s.m, columns / 16), 0);
        for (int64_t i = 0; i < s.m * columns; i += 16) {
          float x[16];
          for (int e = 0; e < 16; ++e) {
            uint16_t bits;
            std::memcpy(&bits, &plain[(i + e) * 2], 2);
            x[e] = bf16_to_float(bits);
          }
          const int64_t at = scale_offset(layout, i / columns, i % columns / 16, columns / 16);
          want[s.m * columns / 2 + at] =
              quantize_nvfp4_block(x, 1.0f / Call::kOutputDecode, &want[i / 2]);
        }
        ASSERT_EQ(quantized, want) << to_string(layout) << " " << to_string(config);
      }
    }
  }
}

std::string shape_name(const testing::TestParamInfo<Sm120Tiles::ParamType>& info) {
  const auto& [format, s] = info.param;
  return fmt::format("{}_m{}_n{}_k{}", to_string(format), s.m, s.n, s.k);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, Sm120Tiles,
    testing::Combine(testing::Values(WeightFormat::kNvfp4, WeightFormat::kMxfp4),
                     testing::Values(Shape{1, 16, 32}, Shape{1, 100, 1056}, Shape{3, 33, 96},
                                     Shape{7, 144, 2048}, Shape{8, 32, 160}, Shape{9, 50, 4128},
                                     Shape{16, 64, 512}, Shape{17, 100, 288}, Shape{40, 208, 352},
                                     Shape{65, 48, 640}, Shape{128, 130, 256}, Shape{129, 304, 192},
                                     Shape{300, 96, 1056})),
    shape_name);

}  // namespace
}  // namespace nibble::sm120
