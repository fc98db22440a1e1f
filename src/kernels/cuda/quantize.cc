#include "kernels/cuda/quantize.h"

#include <algorithm>

#include "kernels/cuda/pointer.h"
#include "kernels/cuda/quantize_launch.h"

namespace nibble::cuda {
namespace {

// tile_m: rows of a thread whose scales pass through shared memory. tile_k: elements of a lane of
// the kernel for small matrices.
constexpr KernelConfig kSmall8 = {.tile_k = 8};
constexpr KernelConfig kSmall16 = {.tile_k = 16};
constexpr KernelConfig kOneRow = {.tile_m = 1};
constexpr KernelConfig kTwoRows = {.tile_m = 2};
constexpr KernelConfig kFourRows = {.tile_m = 4};
constexpr KernelConfig kSmallest[] = {kSmall8, kSmall16, kOneRow, kTwoRows, kFourRows};
constexpr KernelConfig kSmall[] = {kSmall16, kSmall8, kOneRow, kTwoRows, kFourRows};
constexpr KernelConfig kMiddle[] = {kOneRow, kTwoRows, kFourRows, kSmall16, kSmall8};
constexpr KernelConfig kLarge[] = {kTwoRows, kOneRow, kFourRows, kSmall16, kSmall8};
constexpr KernelConfig kLargest[] = {kFourRows, kTwoRows, kOneRow, kSmall16, kSmall8};
constexpr KernelConfig kMx[] = {kTwoRows, kOneRow};
constexpr KernelConfig kMxSmall[] = {kOneRow, kTwoRows};

// Elements from which on the next kernel was the faster one on H200, with the ratio to a copy of
// the same bytes on either side (all configurations of 77 sizes, 2026-11-21).
constexpr int64_t kSmallFrom = int64_t{1} << 21;    // 1.16 -> 1.14; half of it: 1.14 <- 1.16
constexpr int64_t kMiddleFrom = int64_t{6} << 20;   // 1.17 -> 1.12; 2^22: 1.13 <- 1.15
constexpr int64_t kLargeFrom = int64_t{1} << 25;    // 1.08 -> 1.065
constexpr int64_t kLargestFrom = int64_t{1} << 28;  // 1.09 -> 1.008
constexpr int64_t kMxFrom = int64_t{1} << 23;       // 1.27 -> 1.20
// The small kernel's range is longer where the others have a harder time:
constexpr int64_t kMiddleFromF16 = int64_t{1} << 24;     // 1.12 at 2^23, one row 1.22
constexpr int64_t kMiddleFromLinear = int64_t{1} << 27;  // 1.01 at 2^26, two rows 1.03

int64_t middle_from(const QuantizeDesc& d) {
  if (d.layout == ScaleLayout::kLinear) return kMiddleFromLinear;
  return d.src_type == DType::kF16 ? kMiddleFromF16 : kMiddleFrom;
}

std::span<const KernelConfig> candidates(const QuantizeDesc& d, const DeviceInfo&) {
  const bool plain = d.input == QuantizeInput::kPlain && d.experts == 0;
  if (!plain || size_of(d.src_type) != 2) return {&kOneRow, 1};  // these have one way each
  const int64_t elements = d.m * d.k;
  if (d.format == WeightFormat::kMxfp4) {
    if (elements < kMxFrom) return kMxSmall;
    return kMx;
  }
  if (elements < kSmallFrom) return kSmallest;
  if (elements < middle_from(d)) return kSmall;
  if (elements < kLargeFrom) return kMiddle;
  if (elements < kLargestFrom) return kLarge;
  return kLargest;
}

constexpr size_t kCodesAlignment = 8;    // codes are written in words of so many bytes
constexpr size_t kScalesAlignment = 16;  // and swizzled scales
constexpr size_t kRowAlignment = 16;     // of what the fast kernels read

// H200, bench/results/h200_quantize.json: from here on a dependent launch, whose blocks take room
// from those that still work, costs up to 11 %; below it saves up to 20 %.
constexpr int64_t kFewestElementsWithoutPdl = int64_t{1} << 26;

constexpr int64_t kMaxElements = int64_t{1} << 40;

Support on_cuda(const DeviceInfo& device) {
  if (device.kind != DeviceKind::kCuda) return Support::no("runs on a CUDA device only");
  if (device.sm < 80) return Support::no("needs compute capability 8.0, found sm_{}", device.sm);
  return Support::yes();
}

Support is_float(DType type, const char* name) {
  if (type == DType::kF32 || type == DType::kF16 || type == DType::kBF16) return Support::yes();
  return Support::no("{} must be F32, F16 or BF16, found {}", name, to_string(type));
}

Support can_quantize(const QuantizeDesc& d, const DeviceInfo& device) {
  if (const Support s = on_cuda(device); !s) return s;
  if (d.src_type != DType::kF8E4M3) {
    if (const Support s = is_float(d.src_type, "src"); !s) return s;
  }
  // More than memory holds; blocks are counted in 31 bits.
  if (d.m * d.k > kMaxElements) {
    return Support::no("at most 2^40 elements, found {} x {}", d.m, d.k);
  }
  const bool plain = d.input == QuantizeInput::kPlain;
  if (d.method != QuantizeMethod::kRtn && (!plain || d.experts > 0)) {
    return Support::no("method {} takes one matrix as it is, neither experts nor a fused op",
                       to_string(d.method));
  }
  if (d.experts > kMaxExperts) {
    return Support::no("at most {} experts, found {}", kMaxExperts, d.experts);
  }
  if (d.input != QuantizeInput::kRmsNorm) return Support::yes();
  if (d.experts > 0) return Support::no("rms_norm stands in front of the experts, not behind");
  if (d.k > kMaxNormCols) {
    return Support::no("rms_norm holds a row in registers: k <= {}, found {}", kMaxNormCols, d.k);
  }
  return Support::yes();
}

Support can_dequantize(const DequantizeDesc& desc, const DeviceInfo& device) {
  const Support s = on_cuda(device);
  return s ? is_float(desc.dst_type, "dst") : s;
}

// The workspace: what the experts' tiles take, then the parts of amax. Both are written before they
// are read, in every call.
struct Workspace {
  size_t tiles = 0, amax = 0;
  ExpertRows rows;

  explicit Workspace(const QuantizeArgs& args) : Workspace(args.desc) {
    if (args.desc.ragged) rows.offsets = args.expert_offsets;
  }
  explicit Workspace(const QuantizeDesc& d) {
    rows.experts = static_cast<uint32_t>(std::max<int64_t>(d.experts, 1));
    if (d.experts > 0) tiles = num_expert_tiles(d.m, rows) * sizeof(ExpertTile);
    if (d.global == GlobalScale::kComputed) amax = amax_scratch_bytes(rows.experts);
  }
};

QuantizeParams params_of(const QuantizeArgs& args) {
  const QuantizeDesc& d = args.desc;
  QuantizeParams p;
  p.src = static_cast<const uint8_t*>(args.src.data);
  p.src_row_bytes = args.src.stride * static_cast<int64_t>(size_of(d.src_type));
  p.codes = args.codes;
  p.scales = args.scales;
  if (d.global != GlobalScale::kValue) p.decode_scale = args.scale_memory;
  p.encode_scale = 1.0f / args.global_decode_scale;
  p.src_scale = args.src_scale;
  p.m = d.m;
  p.k = d.k;
  p.format = d.format;
  p.type = d.src_type;
  p.layout = d.layout;
  p.rule = d.scale_rule;
  p.method = d.method;
  return p;
}

NormParams norm_of(const QuantizeArgs& args) {
  NormParams n;
  n.weight = args.norm_weight;
  n.eps = args.norm_eps;
  if (args.desc.has_residual) {
    n.residual = static_cast<uint8_t*>(args.residual.data);
    n.residual_row_bytes = args.residual.stride * static_cast<int64_t>(size_of(args.desc.src_type));
  }
  return n;
}

void check_pointers(const QuantizeArgs& args, int device) {
  const QuantizeDesc& d = args.desc;
  const auto check = [&](const char* name, const void* p, size_t alignment) {
    check_device_pointer("quantize", name, p, alignment, device);
  };
  check("src", args.src.data, size_of(d.src_type));
  check("codes", args.codes, kCodesAlignment);
  check("scales", args.scales, kScalesAlignment);
  if (d.global != GlobalScale::kValue) check("scale_memory", args.scale_memory, sizeof(float));
  if (d.ragged) check("expert_offsets", args.expert_offsets, sizeof(int32_t));
  if (d.input == QuantizeInput::kRmsNorm) check("norm_weight", args.norm_weight, kRowAlignment);
  if (d.has_residual) check("residual", args.residual.data, size_of(d.src_type));
}

bool rows_aligned(const MatrixView& v) {
  const auto row_bytes = static_cast<size_t>(v.stride) * size_of(v.dtype);
  return reinterpret_cast<uintptr_t>(v.data) % kRowAlignment == 0 &&
         (row_bytes % kRowAlignment == 0 || v.rows == 1);
}

// For what has no slow path.
void check_rows(const char* name, const MatrixView& v) {
  NIBBLE_CHECK(rows_aligned(v), ErrorCode::kInvalidArgument,
               "quantize: experts and fused ops need the rows of {} aligned to {} bytes, found {} "
               "and rows {} bytes apart",
               name, kRowAlignment, v.data, v.stride * static_cast<int64_t>(size_of(v.dtype)));
}

void quantize(const QuantizeArgs& args, const KernelConfig& config, nibble::Stream stream) {
  const QuantizeDesc& d = args.desc;
  const bool plain = d.input == QuantizeInput::kPlain && d.experts == 0;
  if (!stream.load) check_pointers(args, stream.index);
  if (!plain) check_rows("src", args.src);
  if (d.has_residual) check_rows("residual", args.residual);
  if (d.m * d.k >= kFewestElementsWithoutPdl) stream.pdl = false;
  QuantizeParams p = params_of(args);
  const Workspace workspace(args);
  auto* scratch = static_cast<uint8_t*>(args.workspace);
  const DeviceScope scope(stream.index);
  if (d.global == GlobalScale::kComputed) {
    launch_decode_scales(p, workspace.rows, args.scale_memory, scratch + workspace.tiles, stream);
  }
  if (d.experts > 0) {
    auto* tiles = reinterpret_cast<ExpertTile*>(scratch);
    launch_expert_tiles(p, workspace.rows, quantize_scale_rows(d), tiles, stream);
    p.tiles = tiles;
    p.num_tiles = num_expert_tiles(d.m, workspace.rows);
  }
  if (d.input == QuantizeInput::kRmsNorm) return launch_quantize_rms_norm(p, norm_of(args), stream);
  if (d.input == QuantizeInput::kSiluMul) return launch_quantize_silu_mul(p, stream);
  if (d.experts > 0) return launch_quantize_experts(p, stream);
  if (d.method != QuantizeMethod::kRtn || !rows_aligned(args.src)) {
    return launch_quantize_any(p, stream);
  }
  if (config.tile_k != 0) return launch_quantize_small(p, config.tile_k, stream);
  launch_quantize(p, config.tile_m, stream);
}

void dequantize(const DequantizeArgs& args, const KernelConfig&, nibble::Stream stream) {
  const DequantizeDesc& d = args.desc;
  const size_t element = size_of(d.dst_type);
  check_device_pointer("dequantize", "codes", args.codes, 1, stream.index);
  check_device_pointer("dequantize", "scales", args.scales, 1, stream.index);
  check_device_pointer("dequantize", "dst", args.dst.data, element, stream.index);
  DequantizeParams p;
  p.codes = args.codes;
  p.scales = args.scales;
  p.dst = static_cast<uint8_t*>(args.dst.data);
  p.dst_row_bytes = args.dst.stride * static_cast<int64_t>(element);
  p.decode_scale = args.global_decode_scale;
  p.m = d.m;
  p.k = d.k;
  p.format = d.format;
  p.type = d.dst_type;
  p.layout = d.layout;
  const DeviceScope scope(stream.index);
  launch_dequantize(p, stream);
}

}  // namespace

const QuantizeImpl kQuantize = {
    .name = "cuda_quantize",
    .can_implement = can_quantize,
    .launch = quantize,
    .candidates = candidates,
    .workspace_bytes = [](const QuantizeDesc& d, const KernelConfig&, const DeviceInfo&) {
      const Workspace w(d);
      return w.tiles + w.amax;
    }};

const DequantizeImpl kDequantize = {
    .name = "cuda_dequantize", .can_implement = can_dequantize, .launch = dequantize};

}  // namespace nibble::cuda
