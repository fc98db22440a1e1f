#include "kernels/cuda/quantize.h"

#include "kernels/cuda/pointer.h"
#include "kernels/cuda/quantize_launch.h"

namespace nibble::cuda {
namespace {

// tile_m: rows of a thread. stages: 1 where scales pass through shared memory, 0 where they go
// straight to global memory. The best first, by the number of elements.
constexpr KernelConfig kDirect = {.tile_m = 1};
constexpr KernelConfig kOneRow = {.tile_m = 1, .stages = 1};
constexpr KernelConfig kTwoRows = {.tile_m = 2, .stages = 1};
constexpr KernelConfig kFourRows = {.tile_m = 4, .stages = 1};
struct SizeClass {
  int64_t elements;  // from here on
  KernelConfig configs[4];
};
// H200, bench/results/h200_quantize.json.
constexpr SizeClass kSizeClasses[] = {
    {int64_t{1} << 30, {kFourRows, kTwoRows, kOneRow, kDirect}},
    {int64_t{1} << 25, {kTwoRows, kOneRow, kFourRows, kDirect}},
    {int64_t{1} << 22, {kOneRow, kDirect, kTwoRows, kFourRows}},
    {0, {kDirect, kOneRow, kTwoRows, kFourRows}},
};

std::span<const KernelConfig> candidates(const QuantizeDesc& desc, const DeviceInfo&) {
  for (const SizeClass& c : kSizeClasses) {
    if (desc.m * desc.k >= c.elements) return c.configs;
  }
  return {};
}

constexpr size_t kCodesAlignment = 8;    // codes are written in words of so many bytes
constexpr size_t kScalesAlignment = 16;  // and swizzled scales
constexpr size_t kRowAlignment = 16;     // of what the fast kernel reads

Support on_cuda(const DeviceInfo& device, DType type, const char* name) {
  if (device.kind != DeviceKind::kCuda) return Support::no("runs on a CUDA device only");
  if (device.sm < 80) return Support::no("needs compute capability 8.0, found sm_{}", device.sm);
  if (type != DType::kF32 && type != DType::kF16 && type != DType::kBF16) {
    return Support::no("{} must be F32, F16 or BF16, found {}", name, to_string(type));
  }
  return Support::yes();
}

Support can_quantize(const QuantizeDesc& desc, const DeviceInfo& device) {
  return on_cuda(device, desc.src_type, "src");
}

Support can_dequantize(const DequantizeDesc& desc, const DeviceInfo& device) {
  return on_cuda(device, desc.dst_type, "dst");
}

void quantize(const QuantizeArgs& args, const KernelConfig& config, nibble::Stream stream) {
  const QuantizeDesc& d = args.desc;
  const size_t element = size_of(d.src_type);
  check_device_pointer("quantize", "src", args.src.data, element, stream.index);
  check_device_pointer("quantize", "codes", args.codes, kCodesAlignment, stream.index);
  check_device_pointer("quantize", "scales", args.scales, kScalesAlignment, stream.index);
  QuantizeParams p;
  p.src = static_cast<const uint8_t*>(args.src.data);
  p.src_row_bytes = args.src.stride * static_cast<int64_t>(element);
  p.codes = args.codes;
  p.scales = args.scales;
  p.encode_scale = 1.0f / args.global_decode_scale;
  p.m = d.m;
  p.k = d.k;
  p.format = d.format;
  p.type = d.src_type;
  p.layout = d.layout;
  p.rule = d.scale_rule;
  p.method = d.method;
  if (d.global != GlobalScale::kValue) {
    check_device_pointer("quantize", "scale_memory", args.scale_memory, sizeof(float),
                         stream.index);
    p.decode_scale = args.scale_memory;
  }
  const DeviceScope scope(stream.index);
  if (d.global == GlobalScale::kComputed) {
    launch_decode_scale(p, args.scale_memory, args.workspace, stream);
  }
  const bool aligned = reinterpret_cast<uintptr_t>(args.src.data) % kRowAlignment == 0 &&
                       (p.src_row_bytes % kRowAlignment == 0 || d.m == 1);
  if (d.method != QuantizeMethod::kRtn || !aligned) return launch_quantize_any(p, stream);
  launch_quantize(p, config.tile_m, config.stages != 0, stream);
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
      return d.global == GlobalScale::kComputed ? 2 * sizeof(uint32_t) : size_t{0};
    }};

const DequantizeImpl kDequantize = {
    .name = "cuda_dequantize", .can_implement = can_dequantize, .launch = dequantize};

}  // namespace nibble::cuda
