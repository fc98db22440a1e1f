// The sm_120 GEMM for the table: what it takes, how it may be cut, what that costs, and how its
// activations are quantized.
#include "kernels/sm120/gemm.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cuda/fp4_operand.h"
#include "kernels/cuda/pointer.h"
#include "kernels/sm120/fragments.h"
#include "kernels/sm120/gemm_params.h"

namespace nibble::sm120 {
namespace {

static_assert(std::ranges::all_of(kConfigs, [](const GemmConfig& c) {
  return GemmShared(c, 0).bytes <= kSharedLimit && c.warps_n * c.warps_k * 32 <= kMaxThreads;
}));
constexpr int kSplits[] = {1, 2, 4, 8};

// tile_m tokens, tile_n rows, tile_k of k a step.
KernelConfig to_table(const GemmConfig& c, int split) {
  return {.tile_m = c.tokens,
          .tile_n = c.warps_n * kBlockRows,
          .tile_k = c.warps_k * kBlockK,
          .stages = c.stages,
          .split_k = split};
}
const GemmConfig& from_table(const KernelConfig& config) {
  return *std::ranges::find_if(
      kConfigs, [&](const GemmConfig& c) { return to_table(c, config.split_k) == config; });
}

int split_of(const GemmDesc& d, const KernelConfig& config) {
  return static_cast<int>(std::min<int64_t>(config.split_k, k_blocks(d.k)));
}

// Predicted: no such chip has been timed. kSmMflopPerUs is of NVIDIA's data sheets, on which RTX
// 5090, RTX PRO 6000 and GB10 agree within 8 %; kPeakShare and kFixedUs are the priors of
// dispatch/roofline.cc; the others stand for what an H200 does (its L2 gives each of 132
// multiprocessors 42 bytes a ns; docs/sm90.md has launches and steps).
constexpr double kSmMflopPerUs = 10.2;
constexpr double kPeakShare = 0.55;
constexpr double kDramEfficiency = 0.75;
constexpr double kSmKbytesPerUs = 42;
constexpr double kFixedUs = 2.5;
constexpr double kStepUs = 0.3;      // a stage, however little is in it
constexpr double kQuantizeUs = 2.0;  // a launch in front
constexpr double kAddUs = 1.5;       // and one behind

constexpr ScaleLayout kQuantizedLayout = ScaleLayout::kSwizzled8x4;

// Behind the sums of split tiles.
cuda::Fp4Workspace activation_workspace(const GemmDesc& d, int split) {
  const auto parts = static_cast<size_t>(part_floats(d.m, d.n, split)) * sizeof(float);
  return {d, kQuantizedLayout, (parts + 255) / 256 * 256};
}

Tokens to_tokens(const cuda::Fp4Operand& a) {
  return {.data = a.codes,
          .stride = a.stride,
          .scales = a.scales,
          .layout = a.layout,
          .scale_memory = a.scale_memory,
          .scale = a.scale};
}

Tokens prepare_tokens(const GemmArgs& args, const GemmConfig& config, int split, Stream stream) {
  const GemmDesc& d = args.desc;
  if (d.a_type == DType::kU8) {
    Tokens given = to_tokens(cuda::given_activations(args));
    given.words = d.a_layout != ScaleLayout::kLinear || d.k / block_size(d.weight) % 4 == 0;
    return given;
  }
  const auto* const data = args.a.row<const uint8_t>(0);
  const float static_scale = cuda::static_activation_scale(args);
  const int64_t stride = args.a.stride * static_cast<int64_t>(size_of(d.a_type));
  const bool aligned =
      reinterpret_cast<uintptr_t>(data) % 16 == 0 && (stride % 16 == 0 || d.m == 1);
  if (config.tokens <= kMostQuantizedTokens && d.a_type != DType::kF32 && aligned &&
      static_scale > 0 && GemmShared(config, longest_k_range(d.k, split)).bytes <= kSharedLimit) {
    return {.data = data, .stride = stride, .fp16 = d.a_type == DType::kF16, .scale = static_scale};
  }
  return to_tokens(
      cuda::quantize_activations(args, kQuantizedLayout, activation_workspace(d, split), stream));
}

void check_pointers(const GemmArgs& args, int device) {
  const GemmDesc& d = args.desc;
  const auto check = [&](const char* name, const void* p, size_t alignment) {
    cuda::check_device_pointer("gemm", name, p, alignment, device);
  };
  cuda::check_fp4_activations(args, 4, device);
  cuda::check_weight_device(*args.b, device);
  check("d", args.d.data, size_of(d.d_type));
  if (d.has_c) check("c", args.c.data, size_of(d.d_type));
  if (d.has_bias) check("bias", args.bias, sizeof(float));
  if (d.d_type == DType::kU8) {
    check("d_scales", args.d_scales, 1);
    check("d_decode_scale", args.d_decode_scale, sizeof(float));
  }
}

}  // namespace

Support takes(const GemmDesc& d) {
  if (d.layout != WeightLayout::kSm120) {
    return Support::no("reads layout {}, found {}", to_string(WeightLayout::kSm120),
                       to_string(d.layout));
  }
  if (d.activation != ActivationMode::kFp4) {
    return Support::no("multiplies 4-bit activations, found mode {}", to_string(d.activation));
  }
  const auto is_float = [](DType t) {
    return t == DType::kF32 || t == DType::kF16 || t == DType::kBF16;
  };
  if (!is_float(d.a_type) && d.a_type != DType::kU8) {
    return Support::no("a must be F32, F16, BF16 or U8, found {}", to_string(d.a_type));
  }
  if (!is_float(d.d_type) && d.d_type != DType::kU8) {
    return Support::no("d must be F32, F16, BF16 or U8, found {}", to_string(d.d_type));
  }
  if (d.k % 32 != 0) return Support::no("k must be a multiple of 32, found {}", d.k);
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max() - 1024;
  if (d.m > kMax || d.n > kMax || d.k > kMax) {
    return Support::no("m, n and k must be at most {}", kMax);
  }
  constexpr int64_t kMostRowTiles = 65535;  // the grid's y, at 16 rows a tile
  if (d.n > kMostRowTiles * kBlockRows) {
    return Support::no("n must be at most {}, found {}", kMostRowTiles * kBlockRows, d.n);
  }
  return Support::yes();
}

// Behind SiLU-mul 16 rows give 8 columns: half a block of NVFP4.
std::span<const KernelConfig> candidates(const GemmDesc& d, const DeviceInfo&) {
  const auto make = [](int least_rows) {
    std::vector<KernelConfig> all;
    for (const GemmConfig& c : kConfigs) {
      for (const int split : kSplits) {
        if (c.warps_n * kBlockRows >= least_rows) all.push_back(to_table(c, split));
      }
    }
    return all;
  };
  static const auto all = make(kBlockRows), wide = make(2 * kBlockRows);
  return d.silu_mul && d.d_type == DType::kU8 ? wide : all;
}

double estimate_us(const GemmDesc& d, const KernelConfig& c, const DeviceInfo& device) {
  const auto ceil_div = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  const int split = split_of(d, c);
  const int64_t tiles = ceil_div(d.m, c.tile_m) * ceil_div(d.n, c.tile_n) * split;
  const auto waves = static_cast<double>(ceil_div(tiles, std::max(device.num_sms, 1)));
  const auto steps = static_cast<double>(ceil_div(longest_k_range(d.k, split) * kBlockK, c.tile_k));
  const double math_us = 2e-6 * c.tile_m * c.tile_n * c.tile_k / (kSmMflopPerUs * kPeakShare);
  const double copy_us = 0.5625e-3 * (c.tile_m + c.tile_n) * c.tile_k / kSmKbytesPerUs;
  // Not the largest: they overlap in part.
  const auto overlap = [](double x, double y) { return std::cbrt(x * x * x + y * y * y); };
  const double step_us = overlap(kStepUs, overlap(math_us, copy_us));
  const double bytes = static_cast<double>(packed_bytes(d.n, d.k)) +
                       8.0 * static_cast<double>(part_floats(d.m, d.n, split));
  const double memory_us = bytes / (std::max(device.bandwidth_gbps, 1.0) * kDramEfficiency) * 1e-3;
  const bool quantizes = d.a_type != DType::kU8 && c.tile_m > kMostQuantizedTokens;
  return kFixedUs + (quantizes ? kQuantizeUs : 0) + (split > 1 ? kAddUs : 0) +
         overlap(memory_us, waves * steps * step_us);
}

size_t workspace_bytes(const GemmDesc& d, const KernelConfig& config, const DeviceInfo&) {
  return activation_workspace(d, split_of(d, config)).end;
}

TileWork work(const GemmDesc& d, const KernelConfig& c) {
  const auto ceil_div = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  // The instruction's sizes are those of its last elements.
  constexpr int kMmaTokens = c_place(31, 3).column + 1;
  static_assert(c_place(31, 3).row + 1 == kBlockRows && a_place(31, 3, 7).k + 1 == kStepK);
  const int split = split_of(d, c);
  const int64_t row_tiles = c.tile_n / kBlockRows, blocks = longest_k_range(d.k, split);
  const int64_t tokens = std::min<int64_t>(c.tile_m, d.m), k = std::min(d.k, blocks * kBlockK);
  const int64_t quantized = k / 2 + k / block_size(d.weight);
  const bool quantizes = d.a_type != DType::kU8 && c.tile_m <= kMostQuantizedTokens;
  const int64_t token_bytes = quantizes ? k * static_cast<int64_t>(size_of(d.a_type)) : quantized;
  const int64_t columns = d.silu_mul ? c.tile_n / 2 : c.tile_n;
  const int64_t out_bytes = split > 1 ? c.tile_n * static_cast<int64_t>(sizeof(float))
                            : d.d_type == DType::kU8
                                ? columns / 2 + columns / 16
                                : columns * static_cast<int64_t>(size_of(d.d_type));
  return {.tiles = ceil_div(d.m, c.tile_m) * ceil_div(d.n, c.tile_n) * split,
          .mma = row_tiles * (c.tile_m / kMmaTokens) * blocks * (kBlockK / kStepK),
          .bytes = row_tiles * blocks * kBlockBytes + tokens * (token_bytes + out_bytes)};
}

void launch_as(const GemmArgs& args, const KernelConfig& table, Stream stream, LaunchGemm* launch) {
  if (!stream.load) check_pointers(args, stream.index);
  const GemmDesc& d = args.desc;
  const GemmConfig& config = from_table(table);
  const int split = split_of(d, table);
  const GemmParams p = {.weights = args.b->codes,
                        .row_alpha = args.b->row_alpha,
                        .tokens = prepare_tokens(args, config, split, stream),
                        .out = {.d = args.d.data,
                                .d_stride = args.d.stride,
                                .c = d.has_c ? args.c.data : nullptr,
                                .c_stride = args.c.stride,
                                .bias = d.has_bias ? args.bias : nullptr,
                                .type = d.d_type,
                                .silu_mul = d.silu_mul,
                                .columns = static_cast<int>(d.columns()),
                                .scales = args.d_scales,
                                .layout = d.d_layout,
                                .decode_scale = args.d_decode_scale},
                        .m = static_cast<int>(d.m),
                        .n = static_cast<int>(d.n),
                        .k = static_cast<int>(d.k),
                        .warps_n_log2 = 0,
                        .warps_k_log2 = 0,
                        .split = split,
                        .parts = static_cast<float*>(args.workspace)};
  const cuda::DeviceScope scope(stream.index);
  launch(p, config, d.weight, stream);
}

}  // namespace nibble::sm120
