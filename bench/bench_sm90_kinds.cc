// The sm_90 GEMMs with other operands than bf16 in and out, beside that, on one card:
//   bench_sm90_kinds [--json FILE] [--m 16,512] [--shape 8192x8192,...] [--note TEXT]
// Each kind's chosen kernel, cuBLAS bf16 and cuBLAS fp16 take turns: CUDA graphs, weights rotated
// past L2, medians, the card rested before each (sm90_harness.h). The first kind comes twice,
// the second time as the null test.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <exception>
#include <limits>
#include <string>
#include <vector>

#include "bench/sm90_gemm_problem.h"
#include "bench/sm90_harness.h"
#include "kernels/sm90/gemm.h"

using namespace nibble;
using namespace nibble::bench;

namespace {

struct Kind {
  const char* name;
  DType a = DType::kBF16, d = DType::kBF16;
  bool c = false, bias = false, silu_mul = false, fp4 = false;
  float given_scale = 0.0f;  // of fp4 activations; 0: of the call
};
constexpr std::array kKinds = {
    Kind{.name = "bf16"},
    Kind{.name = "null"},
    Kind{.name = "fp16", .a = DType::kF16, .d = DType::kF16},
    Kind{.name = "fp32 out", .d = DType::kF32},
    Kind{.name = "bias", .bias = true},
    Kind{.name = "C", .c = true},
    Kind{.name = "SiLU-mul", .silu_mul = true},
    Kind{.name = "W4A4, scale given", .fp4 = true, .given_scale = 1.0f / 2688},
    Kind{.name = "W4A4", .fp4 = true},
};

struct Options {
  std::vector<int> m = {1, 16, 64, 128, 256, 512, 1024, 2048};
  std::vector<Shape> shapes = kLayers;
  std::string json, note;
};

// The best candidate of both GEMMs by their estimates.
struct Choice {
  const GemmImpl* impl = nullptr;
  KernelConfig config;
};
Choice choose(const GemmDesc& desc, const DeviceInfo& info) {
  Choice best;
  double least = std::numeric_limits<double>::max();
  for (const GemmImpl* impl : {&sm90::kDecodeGemm, &sm90::kWgmmaGemm}) {
    if (!impl->can_implement(desc, info)) continue;
    for (const KernelConfig& config : impl->candidates(desc, info)) {
      if (const double us = impl->estimate_us(desc, config, info); us < least) {
        least = us;
        best = {impl, config};
      }
    }
  }
  return best;
}

// What all kinds of one cell read and write.
struct Operands {
  Memory<uint16_t> bf16, fp16;
  Memory<float> d, c, bias;
  Memory<uint8_t> workspace{size_t{1} << 30};

  Operands(int m, int n, int k)
      : bf16(size_t(m) * k), fp16(size_t(m) * k), d(size_t(m) * n), c(size_t(m) * n), bias(n) {
    std::mt19937 rng(static_cast<uint32_t>(m + n));
    std::vector<uint16_t> wide(size_t(m) * k), half(size_t(m) * k);
    for (size_t i = 0; i < wide.size(); ++i) {
      const float x = static_cast<float>(rng() & 0xFFFF) / 32768.0f - 1.0f;
      wide[i] = float_to_bf16(x);
      half[i] = float_to_fp16(x);
    }
    CUDA_OK(cudaMemcpy(bf16.p, wide.data(), wide.size() * 2, cudaMemcpyHostToDevice));
    CUDA_OK(cudaMemcpy(fp16.p, half.data(), half.size() * 2, cudaMemcpyHostToDevice));
    CUDA_OK(cudaMemset(c.p, 0, size_t(m) * n * 4));
    CUDA_OK(cudaMemset(bias.p, 0, size_t(n) * 4));
  }
};

std::function<void(int)> launch_of(const Kind& kind, const Layer& layer, int m, const Operands& of,
                                   const DeviceInfo& info) {
  GemmArgs args;
  args.desc = {.m = m,
               .n = layer.n,
               .k = layer.k,
               .weight = WeightFormat::kNvfp4,
               .layout = WeightLayout::kSm90,
               .activation = kind.fp4 ? ActivationMode::kFp4 : ActivationMode::k16Bit,
               .a_type = kind.a,
               .d_type = kind.d,
               .has_c = kind.c,
               .has_bias = kind.bias,
               .silu_mul = kind.silu_mul};
  const int64_t columns = args.desc.columns();
  args.a = {kind.a == DType::kF16 ? of.fp16.p : of.bf16.p, kind.a, m, layer.k, layer.k};
  args.d = {of.d.p, kind.d, m, columns, columns};
  if (kind.c) args.c = {of.c.p, kind.d, m, columns, columns};
  if (kind.bias) args.bias = of.bias.p;
  args.workspace = of.workspace.p;
  const Choice choice = choose(args.desc, info);
  return [args, choice, &layer, given = kind.given_scale](int i) {
    PreparedWeight weight;
    weight.format = WeightFormat::kNvfp4;
    weight.n = layer.n;
    weight.k = layer.k;
    weight.layout = WeightLayout::kSm90;
    weight.codes = layer.copy(i);
    weight.row_alpha = layer.row_alpha.p;
    weight.input_decode_scale = given;
    GemmArgs call = args;
    call.b = &weight;
    choice.impl->launch(call, choice.config, nibble_stream(false));
  };
}

void run(const Options& options) {
  const DeviceInfo info = device_info();
  FILE* json = open_json(options.json, info.name, options.note);
  if (json) std::fprintf(json, ",\n\"cells\": [");
  const char* separator = "\n";
  for (const auto& [n, k] : options.shapes) {
    const Layer layer(n, k, true);
    const CublasLayer bf16(layer, false), fp16(layer, true);
    for (const int m : options.m) {
      const Operands of(m, n, k);
      std::vector<std::function<void(int)>> contenders;
      for (const Kind& kind : kKinds) contenders.push_back(launch_of(kind, layer, m, of, info));
      contenders.emplace_back([&](int i) { bf16.multiply(i, of.bf16.p, m, of.d.p); });
      contenders.emplace_back([&](int i) { fp16.multiply(i, of.fp16.p, m, of.d.p); });
      const std::vector<double> us = medians_us(launches_of(m, n, k), contenders);
      std::string list;
      std::printf("%dx%d m=%-4d %.2f us", n, k, m, us[0]);
      for (size_t i = 0; i < kKinds.size(); ++i) {
        list += fmt::format("\"{}\": {:.3f}, ", kKinds[i].name, us[i]);
        if (i > 0) std::printf(" | %s %.3f", kKinds[i].name, us[i] / us[0]);
      }
      std::printf(" | cublas %.2f, fp16 %.2f\n", us[kKinds.size()], us[kKinds.size() + 1]);
      std::fflush(stdout);
      if (!json) continue;
      std::fprintf(json,
                   "%s{\"n\": %d, \"k\": %d, \"m\": %d, \"us\": {%s\"cublas bf16\": %.3f, "
                   "\"cublas fp16\": %.3f}}",
                   separator, n, k, m, list.c_str(), us[kKinds.size()], us[kKinds.size() + 1]);
      std::fflush(json);
      separator = ",\n";
    }
  }
  close_json(json);
}

}  // namespace

int main(int argc, char** argv) try {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (i + 1 == argc) {
      std::fprintf(stderr, "%s needs a value\n", argv[i]);
      return 2;
    }
    const char* value = argv[++i];
    if (arg == "--note") {
      options.note = value;
    } else if (arg == "--json") {
      options.json = value;
    } else if (arg == "--m") {
      options.m = numbers_of(value);
    } else if (arg == "--shape") {
      options.shapes = shapes_of(value);
    } else {
      std::fprintf(stderr, "unknown argument %s\n", arg.c_str());
      return 2;
    }
  }
  run(options);
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
