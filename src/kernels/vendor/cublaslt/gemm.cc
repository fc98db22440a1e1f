#include "kernels/vendor/cublaslt/gemm.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <mutex>

#include "base/check.h"
#include "base/cuda.h"
#include "kernels/cuda/divide.h"
#include "kernels/cuda/fp4_rows.h"
#include "kernels/cuda/pointer.h"
#include "kernels/vendor/cublaslt/plan.h"

namespace nibble::cublaslt {
namespace {

constexpr ScaleLayout kScales = ScaleLayout::kSwizzled128x4;
constexpr int64_t kAlignment = 16;  // bytes, of every matrix's rows

constexpr auto kRanks = [] {
  std::array<KernelConfig, kMostAlgorithms> ranks;
  for (int i = 0; i < kMostAlgorithms; ++i) ranks[static_cast<size_t>(i)].algorithm = i;
  return ranks;
}();

// Predicted: docs/vendor.md. The four constants of docs/dispatch.md's roofline, fitted with its
// priors to the cuDNN rows of bench/data/nvfp4_gemm_b200.csv (13 % rms), since no published table
// has cuBLASLt. The peak of 10.3 is the data sheet's 1.5 times that, of 12.x sm120/gemm.cc's.
constexpr double kOverheadUs = 9.6;  // a matmul
constexpr double kStreamUs = 0.93;   // 1000 of k, however few rows a tile has
constexpr double kDramEfficiency = 0.90;
constexpr double kSm100MflopPerUs = 30.0;
constexpr double kSm103MflopPerUs = 1.5 * kSm100MflopPerUs;
constexpr double kSm12xMflopPerUs = 10.2 * 0.55;
constexpr int64_t kTileN = 128, kTileM = 256;
constexpr double kQuantizeUs = 2.0;  // a launch in front
constexpr double kAlphaUs = 1.5;     // and a tiny one
constexpr double kRankShare = 0.02;  // by which the library's next algorithm may be the slower one

// The library, and what stands on it for each device.
class Backend {
 public:
  explicit Backend(std::span<const std::string> files)
      : opened_(open_library(files)), plans_(opened_.library) {}

  const std::string& reason() const { return opened_.reason; }

  Multiplier on(int device) {
    const std::lock_guard lock(mutex_);
    auto it = contexts_.find(device);
    if (it == contexts_.end()) it = contexts_.emplace(device, make(device)).first;
    return {it->second.handle, &plans_,
            reinterpret_cast<const float*>(it->second.constants.data())};
  }

  // Kept until the process ends: CUDA may be gone before static objects are.
  static Backend& instance() {
    static Backend& backend = *new Backend(library_files());
    return backend;
  }

 private:
  struct Context {
    cublasLtHandle_t handle = nullptr;
    cuda::Buffer constants;
  };

  Context make(int device) const {
    const float values[] = {0.0f, 1.0f};
    Context context;
    context.constants = cuda::Buffer(device, sizeof(values));
    const cuda::OwnedStream stream(device);
    cuda::copy(context.constants.data(), values, sizeof(values), stream.get());
    cuda::synchronize(stream.get());
    opened_.library->check(opened_.library->Create(&context.handle), "Create");
    return context;
  }

  OpenedLibrary opened_;
  Plans plans_;
  std::mutex mutex_;
  std::map<int, Context> contexts_;
};

bool is_float(DType t) { return t == DType::kF32 || t == DType::kF16 || t == DType::kBF16; }

// Of `rows` rows of B.
Problem problem_of(const GemmDesc& d, int device, int64_t rows, int64_t a_stride, int64_t c_stride,
                   int64_t d_stride) {
  return {.device = device,
          .format = d.weight,
          .type = d.d_type,
          .m = d.m,
          .n = rows,
          .k = d.k,
          .a_stride = a_stride,
          .c_stride = c_stride,
          .d_stride = d_stride,
          .a_alignment = d.a_type == DType::kU8 ? 16 : 256};
}

std::shared_ptr<Plan> plan_of(const GemmDesc& d, int device) {
  const cuda::DeviceScope scope(device);
  const Multiplier on = Backend::instance().on(device);
  return on.plans->get(on.handle, problem_of(d, device, d.n, d.k, d.n, d.n));
}

// The library itself has the last word: what it knows changes with its version and with the chip.
Support can_implement(const GemmDesc& d, const DeviceInfo& device) {
  if (const Support s = cuda::multiplies_fp4(device); !s) return s;
  if (const Support s = takes(d); !s) return s;
  if (!Backend::instance().reason().empty()) return {Backend::instance().reason()};
  try {
    const auto plan = plan_of(d, device.index);
    return plan->algorithms() > 0 ? Support::yes() : Support{plan->refusal()};
  } catch (const Error& error) {
    return {error.what()};
  }
}

// As many as the heuristic named; where it can't be asked, its first.
std::span<const KernelConfig> candidates(const GemmDesc& d, const DeviceInfo& device) {
  const int count = can_implement(d, device) ? plan_of(d, device.index)->algorithms() : 1;
  return {kRanks.data(), static_cast<size_t>(count)};
}

double sm_mflop_per_us(int sm) {
  return sm >= 120 ? kSm12xMflopPerUs : sm == 103 ? kSm103MflopPerUs : kSm100MflopPerUs;
}

double estimate_us(const GemmDesc& d, const KernelConfig& c, const DeviceInfo& device) {
  using cuda::ceil_div;
  const auto cube = [](double x) { return x * x * x; };
  const int sms = std::max(device.num_sms, 1);
  const double m = static_cast<double>(d.m), n = static_cast<double>(d.n);
  const double k = static_cast<double>(d.k);
  const auto waves =
      static_cast<double>(ceil_div(ceil_div(d.n, kTileN) * ceil_div(d.m, kTileM), sms));
  const double bytes = (n + m) * k * 0.5625 + static_cast<double>(size_of(d.d_type)) * m * n;
  const double memory_us = bytes / (std::max(device.bandwidth_gbps, 1.0) * kDramEfficiency) * 1e-3;
  const double peak = sms * sm_mflop_per_us(device.sm);
  const double body = std::cbrt(cube(waves * k / 1000 * kStreamUs) + cube(memory_us) +
                                cube(2e-6 * m * n * k / peak));
  return (d.a_type != DType::kU8 ? kQuantizeUs : 0) +
         (d.weight == WeightFormat::kNvfp4 ? kAlphaUs : 0) +
         (kOverheadUs * d.num_segments + body) * (1 + kRankShare * c.algorithm);
}

// The library's, then the quantized activations, then alpha.
struct Workspace {
  cuda::Fp4Workspace activations;
  size_t alphas, end;

  explicit Workspace(const GemmDesc& d)
      : activations(d, kScales, kWorkspaceBytes),
        alphas(activations.end),
        end(alphas + cuda::fp4_alpha_bytes(d)) {}
};

void check_pointers(const GemmArgs& args, int device) {
  const GemmDesc& d = args.desc;
  cuda::check_fp4_activations(args, kAlignment, device);
  cuda::check_weight_device(*args.b, device);
  const auto check = [&](const char* name, const MatrixView& v) {
    cuda::check_device_pointer("gemm", name, v.data, kAlignment, device);
    const int64_t row_bytes = v.stride * static_cast<int64_t>(size_of(v.dtype));
    NIBBLE_CHECK(row_bytes % kAlignment == 0 || d.m == 1, ErrorCode::kInvalidArgument,
                 "gemm: {}'s rows must be a multiple of {} bytes apart, found {}", name, kAlignment,
                 row_bytes);
  };
  check("d", args.d);
  if (d.has_c) check("c", args.c);
}

void launch(const GemmArgs& args, const KernelConfig& config, Stream stream) {
  check_pointers(args, stream.index);
  const GemmDesc& d = args.desc;
  const cuda::DeviceScope scope(stream.index);
  const Workspace at(d);
  auto* const memory = static_cast<uint8_t*>(args.workspace);
  const cuda::Fp4Operand a =
      d.a_type == DType::kU8 ? cuda::given_activations(args)
                             : cuda::quantize_activations(args, kScales, at.activations, stream);
  const float* const alphas =
      cuda::fp4_alphas(args, a, reinterpret_cast<float*>(memory + at.alphas), stream);
  multiply(Backend::instance().on(stream.index), args, a, alphas, config.algorithm, memory, stream);
}

}  // namespace

// cuBLAS 13's documentation of cublasLtMatmul, "block-scaled FP4 kernels", and "Tensor Core Usage":
// rows of every matrix are aligned to 16 bytes; C and D have one type of 16 or 32 bits.
Support takes(const GemmDesc& d) {
  if (d.layout != WeightLayout::kFp4Rows) {
    return Support::no("reads layout {}, found {}", to_string(WeightLayout::kFp4Rows),
                       to_string(d.layout));
  }
  if (const Support s = cuda::takes_fp4_activations(d, kScales); !s) return s;
  if (d.d_type == DType::kU8) {
    return Support::no("cuBLASLt quantizes D from its fp32 sums, not from bf16");
  }
  if (!is_float(d.d_type)) {
    return Support::no("d must be F32, F16 or BF16, found {}", to_string(d.d_type));
  }
  if (d.silu_mul) return Support::no("cuBLASLt has no silu_mul");
  if (d.has_bias) return Support::no("cuBLASLt's bias has 16 bits, ours 32");
  if (d.k % 32 != 0) return Support::no("k must be a multiple of 32, found {}", d.k);
  const int64_t step = kAlignment / static_cast<int64_t>(size_of(d.d_type));
  if (d.n % step != 0) {
    return Support::no("n must be a multiple of {} for d in {}, found {}", step,
                       to_string(d.d_type), d.n);
  }
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  if (d.m > kMax || d.n > kMax || d.k > kMax) {
    return Support::no("m, n and k must be at most {}", kMax);
  }
  return Support::yes();
}

void multiply(const Multiplier& on, const GemmArgs& args, const cuda::Fp4Operand& a,
              const float* alphas, int algorithm, void* workspace, Stream stream) {
  const GemmDesc& d = args.desc;
  // Of one row no stride counts, and validate() lets it be anything.
  const bool one_row = d.m == 1;
  const MatrixView& c_view = d.has_c ? args.c : args.d;
  const int64_t element = static_cast<int64_t>(size_of(d.d_type));
  for (int64_t i = 0; i < d.num_segments; ++i) {
    const cuda::Fp4Segment segment = cuda::fp4_segment(*args.b, i);
    const auto column = [&](const MatrixView& v) {
      return static_cast<uint8_t*>(v.data) + segment.begin * element;
    };
    const auto plan = on.plans->get(
        on.handle,
        problem_of(d, stream.index, segment.end - segment.begin, one_row ? d.k : 2 * a.stride,
                   one_row ? d.n : c_view.stride, one_row ? d.n : args.d.stride));
    NIBBLE_CHECK(plan->algorithms() > 0, ErrorCode::kUnsupported, "gemm: {}", plan->refusal());
    plan->run({.a = a.codes,
               .a_scales = a.scales,
               .b = segment.codes,
               .b_scales = segment.scales,
               .c = column(c_view),
               .d = column(args.d),
               .alpha = alphas + i,
               .beta = on.zero_and_one + (d.has_c ? 1 : 0),
               .workspace = workspace},
              algorithm, static_cast<cudaStream_t>(stream.cuda));
  }
}

const GemmImpl kGemm = {.name = "cublaslt_fp4_gemm",
                        .can_implement = can_implement,
                        .launch = launch,
                        .candidates = candidates,
                        .estimate_us = estimate_us,
                        .workspace_bytes = [](const GemmDesc& d, const KernelConfig&,
                                              const DeviceInfo&) { return Workspace(d).end; }};

}  // namespace nibble::cublaslt
