// The C ABI: checks what C can get wrong, turns handles into objects and exceptions into codes.
#include "nibble/nibble.h"

#include <memory>
#include <new>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/check.h"
#include "dispatch/ops.h"
#include "formats/scale_layout.h"
#include "nibble/gemm.h"

struct nibble_device {
  nibble::Device device;
};
struct nibble_weight {
  nibble::LinearWeight weight;
};
struct nibble_gemm {
  nibble::GemmPlan plan;
  int64_t max_m;
  nibble::DType a_type, d_type;
  mutable std::set<std::string> kernels;  // that nibble_gemm_kernel gave
};

namespace nibble {
namespace {

static_assert(NIBBLE_F32 == static_cast<int>(DType::kF32) &&
              NIBBLE_F16 == static_cast<int>(DType::kF16) &&
              NIBBLE_BF16 == static_cast<int>(DType::kBF16) &&
              NIBBLE_F8_E4M3 == static_cast<int>(DType::kF8E4M3) &&
              NIBBLE_FP4 == static_cast<int>(DType::kU8));
static_assert(NIBBLE_INPUT_PLAIN == static_cast<int>(QuantizeInput::kPlain) &&
              NIBBLE_INPUT_SILU_MUL == static_cast<int>(QuantizeInput::kSiluMul) &&
              NIBBLE_INPUT_RMS_NORM == static_cast<int>(QuantizeInput::kRmsNorm));
static_assert(NIBBLE_NVFP4 == static_cast<int>(WeightFormat::kNvfp4) &&
              NIBBLE_MXFP4 == static_cast<int>(WeightFormat::kMxfp4));
static_assert(NIBBLE_LINEAR == static_cast<int>(ScaleLayout::kLinear) &&
              NIBBLE_SWIZZLED_128X4 == static_cast<int>(ScaleLayout::kSwizzled128x4) &&
              NIBBLE_SWIZZLED_8X4 == static_cast<int>(ScaleLayout::kSwizzled8x4));

constexpr auto kBad = ErrorCode::kInvalidArgument;

thread_local std::string last_error;

nibble_status status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return NIBBLE_INVALID_ARGUMENT;
    case ErrorCode::kUnsupported:
      return NIBBLE_UNSUPPORTED;
    case ErrorCode::kDevice:
      return NIBBLE_DEVICE;
    default:
      return NIBBLE_INTERNAL;
  }
}

template <class Body>
nibble_status guarded(const Body& body) noexcept {
  try {
    try {
      body();
      return NIBBLE_OK;
    } catch (const Error& e) {
      last_error = e.what();
      return status_of(e.code());
    } catch (const std::bad_alloc&) {
      last_error = "out of memory";
      return NIBBLE_OUT_OF_MEMORY;
    } catch (const std::exception& e) {
      last_error = e.what();
      return NIBBLE_INTERNAL;
    }
  } catch (...) {  // no memory for the message
    last_error.clear();
    return NIBBLE_OUT_OF_MEMORY;
  }
}

template <class T>
T& given(T* pointer, const char* function, const char* name) {
  NIBBLE_CHECK(pointer != nullptr, kBad, "{}: {} is null", function, name);
  return *pointer;
}

// C enums may hold any int, so they are checked before they index anything.
DType to_dtype(int value, const char* function, const char* name) {
  NIBBLE_CHECK(value >= NIBBLE_F32 && value <= NIBBLE_BF16, kBad,
               "{}: {}: expected NIBBLE_F32, _F16 or _BF16, found {}", function, name, value);
  return static_cast<DType>(value);
}
DType to_gemm_type(int value, const char* function, const char* name) {
  if (value == NIBBLE_FP4) return DType::kU8;
  NIBBLE_CHECK(value >= NIBBLE_F32 && value <= NIBBLE_BF16, kBad,
               "{}: {}: expected NIBBLE_F32, _F16, _BF16 or _FP4, found {}", function, name, value);
  return static_cast<DType>(value);
}
WeightFormat to_format(int value, const char* function) {
  NIBBLE_CHECK(value == NIBBLE_NVFP4 || value == NIBBLE_MXFP4, kBad,
               "{}: format: expected NIBBLE_NVFP4 or _MXFP4, found {}", function, value);
  return static_cast<WeightFormat>(value);
}
QuantizeInput to_input(int value, const char* function) {
  NIBBLE_CHECK(value >= NIBBLE_INPUT_PLAIN && value <= NIBBLE_INPUT_RMS_NORM, kBad,
               "{}: input: expected a nibble_quantize_input, found {}", function, value);
  return static_cast<QuantizeInput>(value);
}
ScaleLayout to_layout(int value, const char* function) {
  NIBBLE_CHECK(value >= NIBBLE_LINEAR && value <= NIBBLE_SWIZZLED_8X4, kBad,
               "{}: layout: expected NIBBLE_LINEAR, _SWIZZLED_128X4 or _8X4, found {}", function,
               value);
  return static_cast<ScaleLayout>(value);
}
std::optional<ScaleLayout> to_layout(const nibble_scale_layout* layout, const char* function) {
  return layout ? std::optional(to_layout(*layout, function)) : std::nullopt;
}
ActivationMode to_activation(int value, const Device& device, const char* function) {
  switch (value) {
    case NIBBLE_ACTIVATION_DEFAULT:
      return default_activation(device.info());
    case NIBBLE_ACTIVATION_16BIT:
      return ActivationMode::k16Bit;
    case NIBBLE_ACTIVATION_FP4:
      return ActivationMode::kFp4;
    case NIBBLE_ACTIVATION_INT8:
      return ActivationMode::kInt8;
    case NIBBLE_ACTIVATION_BF16:
      return ActivationMode::kBf16;
    default:
      fail(kBad, "{}: activation: expected a nibble_activation, found {}", function, value);
  }
}

// Strides of 0: packed.
void run(const nibble_gemm& gemm, GemmOperands operands, int64_t m) {
  const LinearWeight& w = gemm.plan.weight();
  const auto fill = [](int64_t& stride, DType type, int64_t columns) {
    if (stride == 0) stride = type == DType::kU8 ? columns / 2 : columns;
  };
  fill(operands.a_stride, gemm.a_type, w.k());
  fill(operands.d_stride, gemm.d_type, w.columns());
  gemm.plan.run(operands, m);
}

// Copies of a description's arrays.
struct OwnedWeight {
  std::vector<uint8_t> codes, scales;
};

WeightTensor to_tensor(const nibble_weight_desc& desc) {
  constexpr auto kName = "nibble_weight_create";
  WeightTensor t;
  t.name = "weight";
  t.format = to_format(desc.format, kName);
  t.n = desc.n;
  t.k = desc.k;
  t.gate_up = desc.gate_up != 0;
  const int64_t block = block_size(t.format);
  constexpr int64_t kMaxDimension = INT32_MAX;  // so that no product below overflows
  NIBBLE_CHECK(t.n >= 1 && t.n <= kMaxDimension && t.k >= block && t.k <= kMaxDimension, kBad,
               "{}: expected n and k in 1 .. 2^31 - 1, found n = {}, k = {}", kName, t.n, t.k);
  NIBBLE_CHECK(t.k % block == 0, kBad, "{}: k must be a multiple of {} for {}, found {}", kName,
               block, to_string(t.format), t.k);
  given(desc.codes, kName, "codes");
  given(desc.scales, kName, "scales");
  if (t.format == WeightFormat::kNvfp4) {
    given(desc.decode_scales, kName, "decode_scales");
    const int64_t segments = desc.num_segments == 0 ? 1 : desc.num_segments;
    NIBBLE_CHECK(segments >= 1 && segments <= t.n, kBad,
                 "{}: num_segments: expected 1 .. n = {}, found {}", kName, t.n, segments);
    if (segments > 1) given(desc.segment_begin, kName, "segment_begin");
    for (int64_t i = 0; i < segments; ++i) {
      t.segments.push_back({desc.segment_begin ? desc.segment_begin[i] : 0, desc.decode_scales[i]});
    }
  }
  auto owned = std::make_shared<OwnedWeight>();
  owned->codes.assign(desc.codes, desc.codes + t.n * row_bytes(t.format, t.k));
  owned->scales.assign(desc.scales, desc.scales + t.n * (t.k / block));
  t.codes = owned->codes.data();
  t.scales = owned->scales.data();
  t.owner = std::move(owned);
  return t;
}

}  // namespace
}  // namespace nibble

using nibble::given;
using nibble::guarded;

const char* nibble_last_error(void) { return nibble::last_error.c_str(); }

nibble_status nibble_device_create_cpu(int threads, nibble_device** device) {
  return guarded([&] {
    given(device, __func__, "device") = nullptr;
    *device = new nibble_device{nibble::Device::cpu(threads)};
  });
}

nibble_status nibble_device_create_cuda(int index, nibble_device** device) {
  return guarded([&] {
    given(device, __func__, "device") = nullptr;
    *device = new nibble_device{nibble::Device::cuda(index)};
  });
}

void* nibble_device_stream(const nibble_device* device) {
  return device ? device->device.stream().cuda : nullptr;
}

nibble_status nibble_device_use_stream(const nibble_device* device, void* stream) {
  return guarded([&, name = __func__] { given(device, name, "device").device.use_stream(stream); });
}

nibble_status nibble_device_use_pdl(const nibble_device* device, int on) {
  return guarded([&, name = __func__] { given(device, name, "device").device.use_pdl(on != 0); });
}

nibble_status nibble_device_synchronize(const nibble_device* device) {
  return guarded([&] { given(device, __func__, "device").device.synchronize(); });
}

void nibble_device_free(nibble_device* device) { delete device; }

size_t nibble_scale_bytes(nibble_format format, nibble_scale_layout layout, int64_t m, int64_t k) {
  size_t bytes = 0;
  guarded([&] {
    const int64_t block = nibble::block_size(nibble::to_format(format, __func__));
    const nibble::ScaleLayout l = nibble::to_layout(layout, __func__);
    if (m < 1 || m > INT32_MAX || k < 1 || k > INT32_MAX || k % block != 0) return;
    bytes = static_cast<size_t>(nibble::scale_bytes(l, m, k / block));
  });
  return bytes;
}

nibble_status nibble_convert_scales(nibble_format format, nibble_scale_layout from,
                                    nibble_scale_layout to, int64_t m, int64_t k,
                                    const uint8_t* src, uint8_t* dst) {
  return guarded([&, name = __func__] {
    const nibble::WeightFormat f = nibble::to_format(format, name);
    const auto bytes = [&](nibble::ScaleLayout layout) {
      return static_cast<size_t>(nibble::scale_bytes(f, layout, m, k));
    };
    const nibble::ScaleLayout in = nibble::to_layout(from, name), out = nibble::to_layout(to, name);
    const size_t in_bytes = bytes(in), out_bytes = bytes(out);
    if (in_bytes == 0) return;
    nibble::convert_scales(in, out, m, k / nibble::block_size(f),
                           {&given(src, name, "src"), in_bytes},
                           {&given(dst, name, "dst"), out_bytes});
  });
}

nibble_status nibble_quantize(const nibble_quantize_args* args, const nibble_device* device) {
  return guarded([&, name = __func__] {
    const nibble_quantize_args& in = given(args, name, "args");
    const nibble::Device& d = given(device, name, "device").device;
    nibble::QuantizeArgs q;
    q.desc.format = nibble::to_format(in.format, name);
    q.desc.layout = nibble::to_layout(in.layout, name);
    q.desc.src_type = in.src_type == NIBBLE_F8_E4M3
                          ? nibble::DType::kF8E4M3
                          : nibble::to_dtype(in.src_type, name, "src_type");
    q.desc.input = nibble::to_input(in.input, name);
    q.desc.has_residual = in.residual != nullptr;
    q.desc.experts = in.experts;
    q.desc.ragged = in.expert_offsets != nullptr;
    q.desc.m = in.m;
    q.desc.k = in.k;
    if (q.desc.format == nibble::WeightFormat::kNvfp4) {
      q.scale_memory = &given(in.decode_scale, name, "decode_scale");
      q.desc.global =
          in.compute_decode_scale ? nibble::GlobalScale::kComputed : nibble::GlobalScale::kMemory;
    }
    const int64_t cols = in.input == NIBBLE_INPUT_SILU_MUL ? 2 * in.k : in.k;
    q.src = {const_cast<void*>(in.src), q.desc.src_type, in.m, cols,
             in.src_stride == 0 ? cols : in.src_stride};
    q.src_scale = in.src_scale == 0 ? 1.0f : in.src_scale;
    q.residual = {in.residual, q.desc.src_type, in.m, in.k,
                  in.residual_stride == 0 ? in.k : in.residual_stride};
    q.norm_weight = in.norm_weight;
    q.norm_eps = in.norm_eps;
    q.expert_offsets = in.expert_offsets;
    q.codes = in.codes;
    q.scales = in.scales;
    nibble::quantize(q, d);
  });
}

nibble_status nibble_weight_create(const nibble_weight_desc* desc, const nibble_device* device,
                                   nibble_activation activation, nibble_weight** weight) {
  return guarded([&, name = __func__] {
    given(weight, name, "weight") = nullptr;
    const nibble::Device& d = given(device, name, "device").device;
    const nibble::ActivationMode mode = nibble::to_activation(activation, d, name);
    *weight =
        new nibble_weight{nibble::prepare(nibble::to_tensor(given(desc, name, "desc")), d, mode)};
  });
}

size_t nibble_weight_bytes(const nibble_weight* weight) {
  return weight ? weight->weight.bytes() : 0;
}

void nibble_weight_free(nibble_weight* weight) { delete weight; }

nibble_status nibble_gemm_create(const nibble_weight* weight, const nibble_device* device,
                                 const nibble_gemm_options* options, nibble_gemm** gemm) {
  return guarded([&, name = __func__] {
    given(gemm, name, "gemm") = nullptr;
    const nibble::LinearWeight& w = given(weight, name, "weight").weight;
    const nibble::Device& d = given(device, name, "device").device;
    const nibble_gemm_options& in = given(options, name, "options");
    const nibble::GemmOptions o = {.max_m = in.max_m == 0 ? 1 : in.max_m,
                                   .a = nibble::to_gemm_type(in.a_type, name, "a_type"),
                                   .d = nibble::to_gemm_type(in.d_type, name, "d_type"),
                                   .activation = nibble::to_activation(in.activation, d, name),
                                   .add = in.add != 0,
                                   .bias = in.bias,
                                   .a_layout = nibble::to_layout(in.a_layout, name),
                                   .d_layout = nibble::to_layout(in.d_layout, name),
                                   .d_reader = in.d_reader ? &in.d_reader->plan : nullptr};
    *gemm = new nibble_gemm{nibble::GemmPlan(w, d, o), o.max_m, o.a, o.d, {}};
  });
}

nibble_status nibble_gemm_run(const nibble_gemm* gemm, const void* a, int64_t a_stride, void* d,
                              int64_t d_stride, int64_t m) {
  return guarded([&, name = __func__] {
    nibble::run(given(gemm, name, "gemm"),
                {.a = a, .a_stride = a_stride, .d = d, .d_stride = d_stride}, m);
  });
}

nibble_status nibble_gemm_run_fp4(const nibble_gemm* gemm, const nibble_gemm_operands* operands,
                                  int64_t m) {
  return guarded([&, name = __func__] {
    const nibble_gemm_operands& o = given(operands, name, "operands");
    nibble::run(given(gemm, name, "gemm"),
                {.a = o.a,
                 .a_stride = o.a_stride,
                 .a_scales = o.a_scales,
                 .a_decode_scale = o.a_decode_scale,
                 .d = o.d,
                 .d_stride = o.d_stride,
                 .d_scales = o.d_scales,
                 .d_decode_scale = o.d_decode_scale},
                m);
  });
}

nibble_status nibble_gemm_layouts(const nibble_gemm* gemm, int64_t m, nibble_scale_layout* a_layout,
                                  nibble_scale_layout* d_layout) {
  return guarded([&, name = __func__] {
    const nibble::GemmPlan& plan = given(gemm, name, "gemm").plan;
    const nibble::ScaleLayout a = plan.activation_layout(m), d = plan.output_layout(m);
    if (a_layout) *a_layout = static_cast<nibble_scale_layout>(a);
    if (d_layout) *d_layout = static_cast<nibble_scale_layout>(d);
  });
}

const char* nibble_gemm_kernel(const nibble_gemm* gemm, int64_t m) {
  if (gemm == nullptr || m < 1 || m > gemm->max_m) return nullptr;
  const char* name = nullptr;
  guarded([&] { name = gemm->kernels.insert(gemm->plan.choice(m).impl).first->c_str(); });
  return name;
}

void nibble_gemm_free(nibble_gemm* gemm) { delete gemm; }
