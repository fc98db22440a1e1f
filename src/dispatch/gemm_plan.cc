#include "dispatch/gemm_plan.h"

#include <algorithm>

#include "base/check.h"
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

// m = 1 .. 16 each have their own choice; above, each power of two is cut into four.
constexpr int64_t kExactM = 16;

int64_t bucket_of(int64_t m) {
  if (m <= kExactM) return m - 1;
  int shift = 0;  // so that (m - 1) >> shift is in [4, 8)
  while ((m - 1) >> shift >= 8) ++shift;
  return kExactM + (shift - 2) * 4 + ((m - 1) >> shift) - 4;
}

// The largest m of a bucket: what its choice is made for.
int64_t largest_m(int64_t bucket) {
  if (bucket < kExactM) return bucket + 1;
  const int64_t shift = (bucket - kExactM) / 4 + 2;
  return ((bucket - kExactM) % 4 + 5) << shift;
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

ActivationMode default_activation(const Device& device) {
  // On SmolLM2-135M int8 adds 0.0012 KL to 16-bit activations and doubles the tokens per second.
  return device.info().kind == DeviceKind::kCpu ? ActivationMode::kInt8 : ActivationMode::k16Bit;
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
  LinearWeight weight;
  Device device;
  GemmOptions options;
  std::vector<Selection<GemmImpl>> by_bucket;
};

GemmPlan::GemmPlan(LinearWeight weight, const Device& device, const GemmOptions& options) {
  NIBBLE_CHECK(weight, ErrorCode::kInvalidArgument, "GemmPlan: weight is empty");
  NIBBLE_CHECK(options.max_m >= 1, ErrorCode::kInvalidArgument,
               "GemmPlan: max_m must be at least 1, found {}", options.max_m);
  auto state = std::make_shared<State>(State{std::move(weight), device, options, {}});
  for (const GemmDesc& desc : planned_descs(state->weight.prepared(), options, device.info())) {
    const Selection<GemmImpl> s = select<GemmImpl>(desc, device);
    trace<GemmImpl>(desc, s, device);
    if (s.impl->workspace_bytes) {
      device.reserve_workspace(s.impl->workspace_bytes(desc, s.config, device.info()));
    }
    state->by_bucket.push_back(s);
  }
  state_ = std::move(state);
}

void GemmPlan::run(const void* a, int64_t a_stride, void* d, int64_t d_stride, int64_t m) const {
  const State& s = *state_;
  const OpTimer timer(s.device, kOpName<GemmImpl>);
  NIBBLE_CHECK(m >= 1 && m <= s.options.max_m, ErrorCode::kInvalidArgument,
               "GemmPlan: m must be 1 .. {}, found {}", s.options.max_m, m);
  const PreparedWeight& w = s.weight.prepared();
  GemmArgs args;
  args.desc = describe(w, s.options, m, s.device.info());
  args.a = {const_cast<void*>(a), s.options.a, m, w.k, a_stride};
  args.b = &w;
  args.d = {d, s.options.d, m, args.desc.columns(), d_stride};
  if (s.options.add) args.c = args.d;
  args.bias = s.options.bias;
  args.workspace = s.device.workspace();
  validate(args);
  const Selection<GemmImpl>& choice = s.by_bucket[bucket_of(m)];
  choice.impl->launch(args, choice.config, s.device.stream());
}

const LinearWeight& GemmPlan::weight() const { return state_->weight; }

KernelChoice GemmPlan::choice(int64_t m) const {
  const GemmDesc desc =
      describe(state_->weight.prepared(), state_->options, m, state_->device.info());
  return describe<GemmImpl>(desc, state_->by_bucket.at(bucket_of(m)), state_->device);
}

}  // namespace nibble
