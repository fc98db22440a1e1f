#include "dispatch/gemm_plan.h"

#include <algorithm>

#include "base/check.h"
#include "base/cuda.h"
#include "dispatch/op_timer.h"
#include "dispatch/select.h"
#include "nibble/gemm.h"

namespace nibble {
namespace {

// Where a chip multiplies bf16, 8-bit activations pay for few rows only: of many the dot products
// cost no more in bf16, and scaling every block of 16 costs as much again.
ActivationMode activation_for(const PreparedWeight& w, ActivationMode asked, int64_t m,
                              const DeviceInfo& device) {
  const bool dot = device.cpu.avx512_bf16 || device.cpu.amx_bf16;
  if (asked == ActivationMode::kInt8 && is_fp4(w.format) && m > kInt8MaxRows && dot) {
    return ActivationMode::kBf16;
  }
  return asked;
}

GemmDesc describe(const PreparedWeight& w, const GemmOptions& options, int64_t m,
                  const DeviceInfo& device) {
  return {.m = m,
          .n = w.n,
          .k = w.k,
          .weight = w.format,
          .layout = w.layout,
          .activation = activation_for(w, options.activation, m, device),
          .a_type = options.a,
          .d_type = options.d,
          .num_segments = static_cast<int>(std::max<size_t>(1, w.segments.size())),
          .has_c = options.add,
          .has_bias = options.bias != nullptr,
          .silu_mul = w.gate_up};
}

using Layouts = std::vector<ScaleLayout>;
Layouts layouts_for(bool quantized, std::optional<ScaleLayout> given, int64_t m) {
  if (!quantized || given) return {given.value_or(ScaleLayout::kLinear)};
  const std::span<const ScaleLayout> preferred = preferred_layouts(m);
  return {preferred.begin(), preferred.end()};
}

// The lowest estimate over all layouts, on equal terms the first. Sets desc's layouts; throws what
// select() throws for the first of them.
Selection<GemmImpl> select_with_layouts(GemmDesc& desc, const Layouts& of_a, const Layouts& of_d,
                                        const Device& device) {
  const auto cost = [](const Selection<GemmImpl>& s) {
    return s.tuned_us > 0 ? s.tuned_us : s.estimate_us;  // 0: order decided
  };
  Selection<GemmImpl> best;
  GemmDesc best_desc = desc;
  for (const ScaleLayout a : of_a) {
    for (const ScaleLayout d : of_d) {
      desc.a_layout = a;
      desc.d_layout = d;
      const Selection<GemmImpl> s = try_select<GemmImpl>(desc, device);
      if (s.impl == nullptr) continue;
      if (best.impl == nullptr || (cost(s) > 0 && cost(s) < cost(best))) {
        best = s;
        best_desc = desc;
      }
    }
  }
  desc = best_desc;
  if (best.impl != nullptr) return best;
  desc.a_layout = of_a[0];
  desc.d_layout = of_d[0];
  return select<GemmImpl>(desc, device);
}

void check_options(const LinearWeight& weight, const GemmOptions& o) {
  constexpr auto kBad = ErrorCode::kInvalidArgument;
  NIBBLE_CHECK(weight, kBad, "GemmPlan: weight is empty");
  NIBBLE_CHECK(o.max_m >= 1, kBad, "GemmPlan: max_m must be at least 1, found {}", o.max_m);
  if (o.a == DType::kU8) {
    NIBBLE_CHECK(o.activation == ActivationMode::kFp4 && is_fp4(weight.format()), kBad,
                 "GemmPlan: quantized activations need mode fp4 and 4-bit weights, found {} and {}",
                 to_string(o.activation), to_string(weight.format()));
  }
  if (o.d != DType::kU8) {
    NIBBLE_CHECK(o.d_reader == nullptr, kBad, "GemmPlan: d_reader is for a quantized D");
    return;
  }
  NIBBLE_CHECK(!o.add, kBad, "GemmPlan: a quantized D can't be added to");
  NIBBLE_CHECK(weight.columns() % block_size(WeightFormat::kNvfp4) == 0, kBad,
               "GemmPlan: D's columns must be a multiple of {} to be quantized, found {}",
               block_size(WeightFormat::kNvfp4), weight.columns());
  if (o.d_reader == nullptr) return;
  const LinearWeight& next = o.d_reader->weight();
  NIBBLE_CHECK(next.format() == WeightFormat::kNvfp4 && next.k() == weight.columns(), kBad,
               "GemmPlan: d_reader must multiply nvfp4 activations of k = {}, found {} of k = {}",
               weight.columns(), to_string(next.format()), next.k());
}

// m = 1 .. 16 each have their own choice; above, each power of two is cut into eight. Cut into
// four, an m between took 2 to 4 % longer on an H200, by the cost model, than by a choice of its
// own (128 to 4096 tokens, 12 layers; 20 at worst); into eight it takes 0.6 to 1.7, into sixteen
// 0.2 to 0.8.
constexpr int64_t kExactM = 16;
constexpr int64_t kPerOctave = 8;

int64_t bucket_of(int64_t m) {
  if (m <= kExactM) return m - 1;
  int shift = 1;  // so that (m - 1) >> shift is in [8, 16)
  while ((m - 1) >> shift >= 2 * kPerOctave) ++shift;
  return kExactM + (shift - 2) * kPerOctave + ((m - 1) >> shift);
}

// The largest m of a bucket: what its choice is made for.
int64_t largest_m(int64_t bucket) {
  if (bucket < kExactM) return bucket + 1;
  const int64_t above = bucket - kExactM, shift = above / kPerOctave + 1;
  return (above % kPerOctave + kPerOctave + 1) << shift;
}

void check_tensor(const WeightTensor& t) {
  constexpr auto kBad = ErrorCode::kInvalidArgument;
  NIBBLE_CHECK(t.n > 0 && t.k > 0, kBad, "prepare: {}: expected a matrix, found [{}, {}]", t.name,
               t.n, t.k);
  NIBBLE_CHECK(!t.gate_up || t.n % 2 == 0, kBad,
               "prepare: {}: gate and up need as many rows each, found {} in all", t.name, t.n);
  NIBBLE_CHECK(t.codes != nullptr, kBad, "prepare: {}: codes is null", t.name);
  if (!is_fp4(t.format)) {
    NIBBLE_CHECK(t.format != WeightFormat::kF8 || t.row_scales != nullptr, kBad,
                 "prepare: {}: row_scales is null", t.name);
    return;
  }
  NIBBLE_CHECK(t.k % block_size(t.format) == 0, kBad,
               "prepare: {}: k must be a multiple of {} for {}, found {}", t.name,
               block_size(t.format), to_string(t.format), t.k);
  NIBBLE_CHECK(t.scales != nullptr, kBad, "prepare: {}: scales is null", t.name);
  if (t.format != WeightFormat::kNvfp4) return;
  NIBBLE_CHECK(!t.segments.empty() && t.segments[0].row_begin == 0, kBad,
               "prepare: {}: expected a segment that begins at row 0", t.name);
  for (size_t i = 1; i < t.segments.size(); ++i) {
    NIBBLE_CHECK(
        t.segments[i].row_begin > t.segments[i - 1].row_begin && t.segments[i].row_begin < t.n,
        kBad, "prepare: {}: segment {} begins at row {}, expected {} .. {}", t.name, i,
        t.segments[i].row_begin, t.segments[i - 1].row_begin + 1, t.n - 1);
  }
}

}  // namespace

int64_t LinearWeight::n() const { return prepared_->n; }
int64_t LinearWeight::k() const { return prepared_->k; }
int64_t LinearWeight::columns() const { return prepared_->gate_up ? n() / 2 : n(); }
WeightFormat LinearWeight::format() const { return prepared_->format; }
size_t LinearWeight::bytes() const { return prepared_->bytes; }

const WeightLayoutImpl& choose_layout(const WeightTensor& tensor, const Device& device,
                                      ActivationMode activation) {
  const std::string_view forced = device.forced_impl(kOpName<GemmImpl>);
  // What the forward passes of a device hand over.
  const DType type = device.info().kind == DeviceKind::kCuda ? DType::kBF16 : DType::kF32;
  std::string reasons;
  for (const WeightLayoutImpl& layout : weight_layouts()) {
    if (const Support s = layout.can_prepare(tensor, device.info()); !s) {
      reasons += fmt::format("\n  layout {}: {}", to_string(layout.layout), s.reason);
      continue;
    }
    const GemmDesc desc{.m = 1,
                        .n = tensor.n,
                        .k = tensor.k,
                        .weight = tensor.format,
                        .layout = layout.layout,
                        .activation = activation,
                        .a_type = type,
                        .d_type = type,
                        .silu_mul = tensor.gate_up};
    for (const GemmImpl& impl : impls<GemmImpl>()) {
      if (!forced.empty() && impl.name != forced) continue;
      const Support s = impl.can_implement(desc, device.info());
      if (s) return layout;
      reasons += fmt::format("\n  {}: {}", impl.name, s.reason);
    }
  }
  fail(ErrorCode::kUnsupported, "prepare: {} [{}, {}] {}: nothing on {} takes it:{}", tensor.name,
       tensor.n, tensor.k, to_string(tensor.format), device.info().name, reasons);
}

LinearWeight prepare(const WeightTensor& tensor, const Device& device, ActivationMode activation) {
  check_tensor(tensor);
  const WeightLayoutImpl& layout = choose_layout(tensor, device, activation);
  return LinearWeight(
      std::make_shared<const PreparedWeight>(layout.prepare(tensor, device.stream())));
}

ActivationMode default_activation(const DeviceInfo& device, bool weight_only) {
  // On SmolLM2-135M int8 adds 0.0012 KL to 16-bit activations and doubles the tokens per second.
  if (device.kind == DeviceKind::kCpu) return ActivationMode::kInt8;
  const bool fp4 = has_native_fp4(device.sm) && !weight_only;
  return fp4 ? ActivationMode::kFp4 : ActivationMode::k16Bit;
}

std::span<const ScaleLayout> preferred_layouts(int64_t m) {
  using enum ScaleLayout;
  static constexpr ScaleLayout kFew[] = {kSwizzled8x4, kSwizzled128x4, kLinear};
  static constexpr ScaleLayout kMany[] = {kSwizzled128x4, kSwizzled8x4, kLinear};
  return m <= kSmallScaleRows ? kFew : kMany;
}

KernelChoice choose_gemm(WeightFormat format, int64_t n, int64_t k, int64_t m, const Device& device,
                         const GemmOptions& options) {
  PreparedWeight header;
  header.format = format;
  header.n = n;
  header.k = k;
  header.layout = choose_layout(header, device, options.activation).layout;
  const GemmDesc desc = describe(header, options, m, device.info());
  return describe<GemmImpl>(desc, select<GemmImpl>(desc, device), device);
}

std::vector<GemmDesc> planned_descs(const PreparedWeight& weight, const GemmOptions& options,
                                    const DeviceInfo& device) {
  std::vector<GemmDesc> descs;
  for (int64_t b = 0; b <= bucket_of(options.max_m); ++b) {
    descs.push_back(describe(weight, options, std::min(largest_m(b), options.max_m), device));
  }
  return descs;
}

struct GemmPlan::State {
  struct Choice {
    Selection<GemmImpl> selection;
    ScaleLayout a_layout, d_layout;
  };
  LinearWeight weight;
  Device device;
  GemmOptions options;
  std::vector<Choice> by_bucket;

  const Choice& choice(int64_t m) const {
    NIBBLE_CHECK(m >= 1 && m <= options.max_m, ErrorCode::kInvalidArgument,
                 "GemmPlan: m must be 1 .. {}, found {}", options.max_m, m);
    return by_bucket[bucket_of(m)];
  }
  GemmDesc desc(int64_t m, const Choice& c) const {
    GemmDesc desc = describe(weight.prepared(), options, m, device.info());
    desc.a_layout = c.a_layout;
    desc.d_layout = c.d_layout;
    return desc;
  }

  void launch(const GemmOperands& o, int64_t m) const {
    const Choice& chosen = choice(m);
    const PreparedWeight& w = weight.prepared();
    // A view of codes counts bytes.
    const auto width = [](DType type, int64_t columns) {
      return type == DType::kU8 ? columns / 2 : columns;
    };
    GemmArgs args;
    args.desc = desc(m, chosen);
    args.a = {const_cast<void*>(o.a), options.a, m, width(options.a, w.k), o.a_stride};
    args.b = &w;
    args.d = {o.d, options.d, m, width(options.d, args.desc.columns()), o.d_stride};
    if (options.add) args.c = args.d;
    args.bias = options.bias;
    args.a_scales = o.a_scales;
    args.a_decode_scale = o.a_decode_scale;
    args.d_scales = o.d_scales;
    args.d_decode_scale = o.d_decode_scale;
    args.workspace = device.workspace();
    validate(args);
    chosen.selection.impl->launch(args, chosen.selection.config, device.stream());
  }

  // A kernel's first launch as a graph takes the host 4 us longer than others (H200), whatever is
  // set, uploaded or launched in its place before. So it is launched here, on zeros, where its
  // graph is new. Many rows are left alone: their own time hides it.
  void launch_first(std::vector<int64_t> rows) const {
    constexpr int64_t kMostRows = 256;
    std::erase_if(rows, [](int64_t m) { return m > kMostRows; });
    std::ranges::reverse(rows);  // few, which are called most, last
    if (rows.empty() || options.a == DType::kU8 || options.d == DType::kU8) return;
    const int64_t k = weight.k(), columns = weight.columns(), most = std::ranges::max(rows);
    const Stream stream = device.stream();
    const auto zeros = [&](DType type, int64_t row) {
      const size_t bytes = static_cast<size_t>(most * row) * size_of(type);
      cuda::Buffer buffer(stream.index, bytes);
      cuda::fill(buffer.data(), 0, bytes, stream.cuda);
      return buffer;
    };
    try {
      const cuda::Buffer a = zeros(options.a, k), d = zeros(options.d, columns);
      for (const int64_t m : rows) {
        launch({.a = a.data(), .a_stride = k, .d = d.data(), .d_stride = columns}, m);
      }
      device.synchronize();
    } catch (const Error&) {
      // No memory to spare, or what run() will say.
    }
  }
};

GemmPlan::GemmPlan(LinearWeight weight, const Device& device, const GemmOptions& options) {
  check_options(weight, options);
  if (options.d_reader) {
    const GemmOptions& reader = options.d_reader->state_->options;
    NIBBLE_CHECK(reader.a == DType::kU8 && reader.max_m >= options.max_m,
                 ErrorCode::kInvalidArgument,
                 "GemmPlan: d_reader must take U8 and {} rows, found {} and {}", options.max_m,
                 to_string(reader.a), reader.max_m);
  }
  auto state = std::make_shared<State>(State{std::move(weight), device, options, {}});
  std::vector<int64_t> new_rows;
  for (GemmDesc& desc : planned_descs(state->weight.prepared(), options, device.info())) {
    std::optional<ScaleLayout> of_d = options.d_layout;
    if (!of_d && options.d_reader) of_d = options.d_reader->activation_layout(desc.m);
    const Selection<GemmImpl> s =
        select_with_layouts(desc, layouts_for(options.a == DType::kU8, options.a_layout, desc.m),
                            layouts_for(options.d == DType::kU8, of_d, desc.m), device);
    trace<GemmImpl>(desc, s, device);
    if (s.impl->workspace_bytes) {
      device.reserve_workspace(s.impl->workspace_bytes(desc, s.config, device.info()));
    }
    if (s.impl->load) {
      Stream stream = device.stream();
      stream.load = true;
      const int64_t graphs = cuda::kernel_graphs();
      s.impl->load(desc, s.config, stream);
      if (cuda::kernel_graphs() > graphs) new_rows.push_back(desc.m);
    }
    state->by_bucket.push_back({s, desc.a_layout, desc.d_layout});
  }
  state->options.d_reader = nullptr;
  state->launch_first(new_rows);
  state_ = std::move(state);
}

void GemmPlan::run(const void* a, int64_t a_stride, void* d, int64_t d_stride, int64_t m) const {
  run({.a = a, .a_stride = a_stride, .d = d, .d_stride = d_stride}, m);
}

void GemmPlan::run(const GemmOperands& o, int64_t m) const {
  const OpTimer timer(state_->device, kOpName<GemmImpl>);
  state_->launch(o, m);
}

ScaleLayout GemmPlan::activation_layout(int64_t m) const { return state_->choice(m).a_layout; }
ScaleLayout GemmPlan::output_layout(int64_t m) const { return state_->choice(m).d_layout; }

const LinearWeight& GemmPlan::weight() const { return state_->weight; }

KernelChoice GemmPlan::choice(int64_t m) const {
  const State::Choice& choice = state_->choice(m);
  return describe<GemmImpl>(state_->desc(m, choice), choice.selection, state_->device);
}

}  // namespace nibble
