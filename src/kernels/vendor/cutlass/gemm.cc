#include "kernels/vendor/cutlass/gemm.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/cuda.h"
#include "base/cuda_check.h"
#include "kernels/cuda/divide.h"
#include "kernels/cuda/fp4_operand.h"
#include "kernels/cuda/fp4_rows.h"
#include "kernels/cuda/pointer.h"

namespace nibble::cutlass_gemm {
namespace {

constexpr ScaleLayout kScales = ScaleLayout::kSwizzled128x4;
constexpr int kSplits[] = {1, 2, 4, 8};

using cuda::ceil_div;

bool runs_on(Family family, int sm) {
  switch (family) {
    case Family::kSm100:
      return sm == 100 || sm == 103;
    case Family::kSm103:
      return sm == 103;
    case Family::kSm120:
      return sm == 120 || sm == 121;
  }
  return false;
}

KernelConfig to_table(const Kernel& kernel, int split) {
  return {.tile_m = kernel.tile.tokens,
          .tile_n = kernel.tile.rows,
          .tile_k = kernel.tile.k,
          .stages = kernel.stages,
          .split_k = split,
          .cluster = kernel.tile.cluster};
}

// What a chip has for a pair of types.
struct Choices {
  int sm;
  WeightFormat format;
  DType d_type;
  std::vector<KernelConfig> configs;
  std::vector<const Kernel*> kernels;  // of each config

  Choices(int chip, WeightFormat weight, DType d) : sm(chip), format(weight), d_type(d) {
    for (const Kernel* kernel : all_kernels()) {
      if (!runs_on(kernel->family, sm) || kernel->format != format || kernel->d_type != d_type) {
        continue;
      }
      for (const int split : kSplits) {
        if (split > 1 && !kernel->tile.splits) break;
        configs.push_back(to_table(*kernel, split));
        kernels.push_back(kernel);
      }
    }
  }
};

// Null where the chip has none.
const Choices* choices(WeightFormat format, DType d_type, int sm) {
  static const auto all = [] {
    std::vector<Choices> made;
    for (const int chip : cuda::kFp4Chips) {
      for (const WeightFormat f : {WeightFormat::kNvfp4, WeightFormat::kMxfp4}) {
        for (const DType d : {DType::kBF16, DType::kF32}) made.emplace_back(chip, f, d);
      }
    }
    return made;
  }();
  const auto found = std::ranges::find_if(all, [&](const Choices& c) {
    return c.sm == sm && c.format == format && c.d_type == d_type && !c.configs.empty();
  });
  return found == all.end() ? nullptr : &*found;
}

const Kernel& kernel_of(const GemmDesc& d, const KernelConfig& config, int sm) {
  const Choices* const c = choices(d.weight, d.d_type, sm);
  NIBBLE_ASSERT(c != nullptr);
  const auto at = std::ranges::find(c->configs, config);
  NIBBLE_ASSERT(at != c->configs.end());
  return *c->kernels[static_cast<size_t>(at - c->configs.begin())];
}

int split_of(const GemmDesc& d, const KernelConfig& config) {
  return static_cast<int>(std::min<int64_t>(config.split_k, ceil_div(d.k, config.tile_k)));
}

// Rows of the largest segment are not in the descriptor: all of them bound any.
Problem shape_of(const GemmDesc& d, const KernelConfig& config, int num_sms) {
  Problem p;
  p.m = static_cast<int>(d.m);
  p.n = static_cast<int>(d.n);
  p.k = static_cast<int>(d.k);
  p.token_stride = d.k / 2;
  p.d_stride = d.n;
  p.split_k = split_of(d, config);
  p.num_sms = num_sms;
  return p;
}

// The workspace, in bytes: quantized activations, alphas, what CUTLASS asks for.
struct Workspace {
  cuda::Fp4Workspace activations;
  size_t alphas, cutlass, end;

  Workspace(const GemmDesc& d, size_t cutlass_bytes)
      : activations(d, kScales, 0),
        alphas(activations.end),
        cutlass(alphas + cuda::fp4_alpha_bytes(d)),
        end(cutlass + cutlass_bytes) {}
};

// Predicted: no such chip has been timed by this project. kSm100's are fitted to the rows of
// "cutlass" in bench/data/nvfp4_gemm_{b200,sm100}.csv (19 % in the root mean square of logs; the
// two tables differ by more than their tiles explain). kSm103's math is the data sheets' ratio to
// that, kSm120's are those of kernels/sm120/gemm.cc.
struct Costs {
  double sm_mflop_per_us;  // that a multiprocessor's MMAs reach
  double sm_kbytes_per_us;
  double dram_efficiency;
  double step_us;  // a stage, however little is in it
  double fixed_us;
};
constexpr Costs kSm100Costs = {42, 150, 0.89, 0.037, 2.2};
constexpr Costs kSm103Costs = {63, 150, 0.89, 0.11, 2.2};
constexpr Costs kSm120Costs = {5.6, 42, 0.75, 0.15, 2.5};
constexpr double kQuantizeUs = 2.0;  // launches in front
constexpr double kAlphaUs = 1.0;
constexpr double kClearUs = 1.5;  // CUTLASS's counters of parts

const Costs& costs_of(Family family) {
  return family == Family::kSm100   ? kSm100Costs
         : family == Family::kSm103 ? kSm103Costs
                                    : kSm120Costs;
}

void check_pointers(const GemmArgs& args, int device) {
  const GemmDesc& d = args.desc;
  cuda::check_fp4_activations(args, 16, device);
  const auto check = [&](const char* name, const MatrixView& x) {
    cuda::check_device_pointer("gemm", name, x.data, 16, device);
    const int64_t bytes = x.stride * static_cast<int64_t>(size_of(d.d_type));
    NIBBLE_CHECK(bytes % 16 == 0 || d.m == 1, ErrorCode::kInvalidArgument,
                 "gemm: {}'s rows must be a multiple of 16 bytes apart, found {}", name, bytes);
  };
  cuda::check_weight_device(*args.b, device);
  check("d", args.d);
  if (d.has_c) check("c", args.c);
  if (d.has_bias) cuda::check_device_pointer("gemm", "bias", args.bias, sizeof(float), device);
}

}  // namespace

std::vector<const Kernel*> all_kernels() {
  std::vector<const Kernel*> all;
  for (const auto part : {sm100_nvfp4(), sm100_others(), sm103_nvfp4(), sm120_all()}) {
    for (const Kernel& kernel : part) all.push_back(&kernel);
  }
  return all;
}

Support can_implement(const GemmDesc& d, const DeviceInfo& device) {
  if (const Support s = cuda::multiplies_fp4(device); !s) return s;
  if (d.layout != WeightLayout::kFp4Rows) {
    return Support::no("reads layout {}, found {}", to_string(WeightLayout::kFp4Rows),
                       to_string(d.layout));
  }
  if (const Support s = cuda::takes_fp4_activations(d, kScales); !s) return s;
  if (d.silu_mul) return Support::no("does not end in silu(gate) * up");
  if (d.d_type != DType::kBF16 && d.d_type != DType::kF32) {
    return Support::no("d must be BF16 or F32, found {}", to_string(d.d_type));
  }
  if (choices(d.weight, d.d_type, device.sm) == nullptr) {
    return Support::no("has no kernel from {} to {} for sm_{}", to_string(d.weight),
                       to_string(d.d_type), device.sm);
  }
  if (d.m < 1) return Support::no("m must be at least 1, found {}", d.m);
  if (d.k < 32 || d.k % 32 != 0) return Support::no("k must be a multiple of 32, found {}", d.k);
  // D's rows are written by TMA in pieces of 16 bytes.
  const int64_t multiple = 16 / static_cast<int64_t>(size_of(d.d_type));
  if (d.n < 1 || d.n % multiple != 0) {
    return Support::no("n must be a multiple of {} for {}, found {}", multiple, to_string(d.d_type),
                       d.n);
  }
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max() - 1024;
  if (d.m > kMost || d.n > kMost || d.k > kMost) {
    return Support::no("m, n and k must be at most {}", kMost);
  }
  return Support::yes();
}

std::span<const KernelConfig> candidates(const GemmDesc& d, const DeviceInfo& device) {
  const Choices* const c = choices(d.weight, d.d_type, device.sm);
  return c != nullptr ? std::span<const KernelConfig>(c->configs) : std::span<const KernelConfig>();
}

double estimate_us(const GemmDesc& d, const KernelConfig& c, const DeviceInfo& device) {
  const Kernel& kernel = kernel_of(d, c, device.sm);
  const Costs& costs = costs_of(kernel.family);
  const int split = split_of(d, c);
  const double launches = std::max(d.num_segments, 1);
  const int64_t n = ceil_div(d.n, std::max(d.num_segments, 1));

  // Not the largest: they overlap in part.
  const auto overlap = [](double x, double y) { return std::cbrt(x * x * x + y * y * y); };
  const double rows = static_cast<double>(c.tile_n) / c.cluster;  // that one SM multiplies
  const double math_us = 2e-6 * rows * c.tile_m * c.tile_k / costs.sm_mflop_per_us;
  const double copy_us =
      0.5625e-3 * (rows + c.tile_m * 1.0 / c.cluster) * c.tile_k / costs.sm_kbytes_per_us;
  const double step_us = overlap(costs.step_us, overlap(math_us, copy_us));
  const int64_t tiles = ceil_div(d.m, c.tile_m) * ceil_div(n, c.tile_n) * split;
  const auto waves = static_cast<double>(ceil_div(tiles, std::max(device.num_sms / c.cluster, 1)));
  const auto steps = static_cast<double>(ceil_div(ceil_div(d.k, c.tile_k), split));

  const auto md = static_cast<double>(d.m), nd = static_cast<double>(n);
  const double parts = split > 1 ? 8.0 * md * nd * split : 0.0;
  const double bytes = 0.5625 * static_cast<double>(d.k) * (nd + md) +
                       static_cast<double>(size_of(d.d_type)) * md * nd + parts;
  const double memory_us =
      bytes / (std::max(device.bandwidth_gbps, 1.0) * costs.dram_efficiency) * 1e-3;
  const double launch_us =
      costs.fixed_us + (split > 1 ? kClearUs : 0) + overlap(memory_us, waves * steps * step_us);
  return launches * launch_us + (d.a_type != DType::kU8 ? kQuantizeUs : 0) +
         (d.weight == WeightFormat::kNvfp4 ? kAlphaUs : 0);
}

size_t workspace_bytes(const GemmDesc& d, const KernelConfig& config, const DeviceInfo& device) {
  const Kernel& kernel = kernel_of(d, config, device.sm);
  return Workspace(d, kernel.workspace_bytes(shape_of(d, config, device.num_sms))).end;
}

// Tensor core instructions of 64 of k, 96 on 10.3's: the tile at once on 10.x, 16 x 8 on 12.x.
TileWork work(const GemmDesc& d, const KernelConfig& c) {
  const auto all = all_kernels();
  const auto found = std::ranges::find_if(
      all, [&](const Kernel* kernel) { return to_table(*kernel, c.split_k) == c; });
  NIBBLE_ASSERT(found != all.end());
  const Family family = (*found)->family;
  const int split = split_of(d, c);
  const int64_t k = ceil_div(ceil_div(d.k, c.tile_k), split) * c.tile_k;
  const int64_t steps = ceil_div(k, family == Family::kSm103 ? 96 : 64);
  const int64_t a_step = family == Family::kSm120 ? c.tile_n / 16 * (c.tile_m / 8) : 1;
  const auto out = static_cast<int64_t>(split > 1 ? sizeof(float) : size_of(d.d_type));
  const int64_t operands = (c.tile_n + c.tile_m) * (k / 2 + k / block_size(d.weight));
  return {.tiles = ceil_div(d.m, c.tile_m) * ceil_div(d.n, c.tile_n) * split,
          .mma = steps * a_step,
          .bytes = operands + c.tile_n * c.tile_m * out};
}

void launch(const GemmArgs& args, const KernelConfig& config, Stream stream) {
  check_pointers(args, stream.index);
  const GemmDesc& d = args.desc;
  const cuda::DeviceScope scope(stream.index);
  const auto attribute = [&](cudaDeviceAttr which) {
    int value = 0;
    NIBBLE_CUDA_CHECK(cudaDeviceGetAttribute(&value, which, stream.index));
    return value;
  };
  const int sm = 10 * attribute(cudaDevAttrComputeCapabilityMajor) +
                 attribute(cudaDevAttrComputeCapabilityMinor);
  const Kernel& kernel = kernel_of(d, config, sm);
  Problem p = shape_of(d, config, cuda::num_sms(stream.index));

  const Workspace at(d, 0);
  auto* const memory = static_cast<uint8_t*>(args.workspace);
  const cuda::Fp4Operand a =
      d.a_type == DType::kU8 ? cuda::given_activations(args)
                             : cuda::quantize_activations(args, kScales, at.activations, stream);
  const float* const alphas =
      cuda::fp4_alphas(args, a, reinterpret_cast<float*>(memory + at.alphas), stream);
  p.tokens = a.codes;
  p.token_scales = a.scales;
  // The stride of a single row may be anything, and TMA wants multiples of 16 bytes.
  const bool one = d.m == 1;
  p.token_stride = one ? d.k / 2 : a.stride;
  p.d_stride = one ? d.n : args.d.stride;
  p.c_stride = one ? d.n : args.c.stride;
  p.workspace = memory + at.cutlass;
  const int64_t element = static_cast<int64_t>(size_of(d.d_type));
  for (int64_t i = 0; i < d.num_segments; ++i) {
    const cuda::Fp4Segment s = cuda::fp4_segment(*args.b, i);
    p.n = static_cast<int>(s.end - s.begin);
    p.weights = s.codes;
    p.weight_scales = s.scales;
    p.alpha = alphas + i;
    p.d = static_cast<uint8_t*>(args.d.data) + s.begin * element;
    p.c = d.has_c ? static_cast<const uint8_t*>(args.c.data) + s.begin * element : nullptr;
    p.bias = d.has_bias ? args.bias + s.begin : nullptr;
    kernel.launch(p, stream);
  }
}

}  // namespace nibble::cutlass_gemm
