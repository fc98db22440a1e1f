#include <algorithm>
#include <cmath>
#include <cstring>

#include "cases/compare.h"
#include "cases/inputs.h"
#include "cases/runner.h"
#include "formats/e2m1.h"
#include "formats/e4m3.h"
#include "formats/float16.h"
#include "formats/nvfp4.h"
#include "formats/scale_layout.h"
#include "formats/ue8m0.h"

namespace nibble::cases {
namespace {

std::vector<uint8_t> encode(const std::vector<float>& values, DType type) {
  std::vector<uint8_t> bytes(values.size() * size_of(type));
  for (size_t i = 0; i < values.size(); ++i) {
    const float v = values[i];
    const uint16_t half = type == DType::kBF16 ? float_to_bf16(v) : float_to_fp16(v);
    if (type == DType::kF32) {
      std::memcpy(&bytes[4 * i], &v, 4);
    } else if (type == DType::kF8E4M3) {
      bytes[i] = v == v ? float_to_e4m3_satfinite(v) : kE4m3Nan;
    } else {
      std::memcpy(&bytes[2 * i], &half, 2);
    }
  }
  return bytes;
}

// Columns: input is plain, silu_mul, rms_norm or add_rms_norm; experts is 0, a number of equal
// parts of m, or "r" and a number of parts of any size, some of them empty.
class QuantizeCase {
 public:
  QuantizeCase(const CaseRow& row, const Device&, const Device&) {
    desc_.format = row.format("format");
    for (int i = 0; i < 3; ++i) {
      const auto rule = static_cast<Mxfp4ScaleRule>(i);
      if (row.text("rule") == to_string(rule)) desc_.scale_rule = rule;
      const auto method = static_cast<QuantizeMethod>(i);
      if (row.text("method") == to_string(method)) desc_.method = method;
    }
    desc_.src_type = row.dtype("src");
    desc_.layout = row.layout("layout");
    desc_.m = row.integer("m");
    desc_.k = row.integer("k");
    constexpr std::string_view kGlobals[] = {"value", "memory", "computed"};
    constexpr std::string_view kInputs[] = {"plain", "silu_mul", "rms_norm"};
    for (int i = 0; i < 3; ++i) {
      if (row.text("global") == kGlobals[i]) desc_.global = static_cast<GlobalScale>(i);
      if (row.text("input") == kInputs[i]) desc_.input = static_cast<QuantizeInput>(i);
    }
    if (row.text("input") == "add_rms_norm") {
      desc_.input = QuantizeInput::kRmsNorm;
      desc_.has_residual = true;
    }
    const std::string& experts = row.text("experts");
    desc_.ragged = experts[0] == 'r';
    desc_.experts = std::stoi(experts.substr(desc_.ragged));
    cols_ = desc_.input == QuantizeInput::kSiluMul ? 2 * desc_.k : desc_.k;
    stride_ = cols_ + row.integer("pad");
    std::mt19937 random(row.seed());
    make_values(random);
    make_experts(random);
    residual_ = encode(random_values(desc_.m * desc_.k, random), desc_.src_type);
    norm_weight_ = random_values(desc_.k, random);
  }

  Support adapt(const QuantizeImpl& impl, const Device& device) const {
    return impl.can_implement(desc_, device.info());
  }
  std::vector<size_t> output_bytes() const {
    return {static_cast<size_t>(desc_.m * desc_.k / 2),
            static_cast<size_t>(quantize_scale_bytes(desc_)),
            std::max<size_t>(desc_.experts, 1) * sizeof(float),
            desc_.has_residual ? residual_.size() : 0};
  }
  void initialize(Outputs& out) const {
    if (desc_.has_residual) std::memcpy(out[3].host(), residual_.data(), residual_.size());
    if (desc_.global != GlobalScale::kMemory) return;
    std::memcpy(out[2].host(), global_scales_.data(), global_scales_.size() * sizeof(float));
  }
  QuantizeArgs args(Outputs& out, Inputs& in) const {
    QuantizeArgs args;
    args.desc = desc_;
    args.src = {in(src_), desc_.src_type, desc_.m, cols_, stride_};
    args.src_scale = 0.37f;
    args.global_decode_scale = global_scales_[0];
    args.scale_memory = reinterpret_cast<float*>(out[2].data());
    args.codes = out[0].data();
    args.scales = out[1].data();
    if (desc_.ragged) args.expert_offsets = in(offsets_);
    args.norm_weight = in(norm_weight_);
    args.norm_eps = 1e-5f;
    args.residual = {out[3].data(), desc_.src_type, desc_.m, desc_.k, desc_.k};
    return args;
  }
  std::string compare(const Outputs& found, const Outputs& expected) const {
    std::string wrong = compare_bytes(found[2].bytes(), expected[2].bytes(), "global scale");
    if (wrong.empty()) wrong = compare_bytes(found[3].bytes(), expected[3].bytes(), "residual");
    if (!wrong.empty()) return wrong;
    if (desc_.input != QuantizeInput::kPlain) return compare_fused(found, expected);
    wrong = compare_bytes(found[1].bytes(), expected[1].bytes(), "scales");
    return wrong.empty() ? compare_bytes(found[0].bytes(), expected[0].bytes(), "codes") : wrong;
  }

 private:
  void make_values(std::mt19937& random) {
    std::vector<float> values = random_values(desc_.m * stride_, random);
    // Whole blocks of zeros, tiny and huge values, and single values that are not finite.
    for (int64_t i = 0; i + 16 <= static_cast<int64_t>(values.size()); i += 16) {
      const uint32_t kind = random() % 12;
      const float factor = kind == 0 ? 0.0f : kind == 1 ? 1e-6f : kind == 2 ? 1e4f : 1.0f;
      for (int64_t j = i; j < i + 16; ++j) values[j] *= factor;
      if (kind == 5) values[i + random() % 16] = -0.0f;
      if (desc_.input == QuantizeInput::kRmsNorm) continue;  // one NaN would be a row of them
      if (kind == 3) values[i + random() % 16] = NAN;
      // An infinite amax would give a computed global scale of 1.
      if (kind == 4 && desc_.global != GlobalScale::kComputed)
        values[i + random() % 16] = -INFINITY;
    }
    src_ = encode(values, desc_.src_type);
  }
  void make_experts(std::mt19937& random) {
    const int64_t experts = std::max<int64_t>(desc_.experts, 1);
    for (int64_t e = 0; e < experts; ++e) {
      global_scales_.push_back(nvfp4_decode_scale(30.0f + 7.0f * static_cast<float>(e)));
    }
    // The first rows and the last belong to nobody.
    offsets_ = {std::min<int32_t>(1, static_cast<int32_t>(desc_.m) - 1)};
    const auto rows = static_cast<uint32_t>(desc_.m - 1);
    while (static_cast<int64_t>(offsets_.size()) <= experts) {
      const auto at = static_cast<int32_t>(random() % (rows + 1));
      offsets_.push_back(random() % 4 == 0 ? offsets_.back() : std::max(offsets_[0], at));
    }
    std::ranges::sort(offsets_);
  }

  // An implementation may get the activation itself wrong by a place of src's type (fp32 and its
  // approximate functions against double). Both results are then within half a step, at most the
  // scale, of their activations, which lie below 6.375 scales and so within 6.375 / 128 of each
  // other (bf16's place); a subnormal scale of 2^-9 may also be none at all. And few may differ:
  // the place changes for one in thousands of elements, and a code for few of these.
  std::string compare_fused(const Outputs& found, const Outputs& expected) const {
    const int64_t cols = desc_.k / block_size(desc_.format);
    const bool mx = desc_.format == WeightFormat::kMxfp4;
    Outputs& writable = const_cast<Outputs&>(expected);
    Inputs inputs(Device::cpu(1));
    const QuantizeArgs a = args(writable, inputs);
    int64_t group = 0, different = 0, count = 0;
    for (const RowGroup& g : row_groups(a)) {
      const float global =
          desc_.global == GlobalScale::kValue ? global_scales_[0] : global_scales_[group];
      ++group;
      for (int64_t i = g.begin; i < g.end; ++i) {
        for (int64_t j = 0; j < desc_.k; ++j, ++count) {
          const int64_t at =
              g.scale_row * padded_scale_cols(desc_.layout, cols) +
              scale_offset(desc_.layout, i - g.begin, j / block_size(desc_.format), cols);
          double value[2], scale[2];
          for (int side = 0; side < 2; ++side) {
            const Outputs& out = side == 0 ? found : expected;
            const uint8_t byte = out[1].bytes()[static_cast<size_t>(at)];
            const uint8_t code =
                unpack_e2m1(&out[0].bytes()[static_cast<size_t>((i * desc_.k + j) / 2)],
                            static_cast<int>(j % 2));
            scale[side] =
                mx ? ue8m0_to_float(byte) : static_cast<double>(e4m3_to_float(byte)) * global;
            value[side] = scale[side] * e2m1_to_float(code);
          }
          different += value[0] != value[1];
          const double bound = 1.05 * (scale[0] + scale[1]) + (mx ? 0.0 : 6 * 0x1p-9 * global);
          if (!(std::fabs(value[0] - value[1]) <= bound)) {
            return fmt::format("[{}, {}]: {}, expected {}, where {:.3g} apart is allowed", i, j,
                               value[0], value[1], bound);
          }
        }
      }
    }
    if (different <= 2 + count / 1000) return {};
    return fmt::format("{} of {} values differ, more than rounding explains", different, count);
  }

  QuantizeDesc desc_;
  int64_t cols_ = 0, stride_ = 0;
  std::vector<uint8_t> src_, residual_;
  std::vector<float> global_scales_, norm_weight_;
  std::vector<int32_t> offsets_;
};

class DequantizeCase {
 public:
  DequantizeCase(const CaseRow& row, const Device&, const Device&) {
    desc_.format = row.format("format");
    desc_.dst_type = row.dtype("dst");
    desc_.layout = row.layout("layout");
    desc_.m = row.integer("m");
    desc_.k = row.integer("k");
    std::mt19937 random(row.seed());
    codes_.resize(desc_.m * desc_.k / 2);
    for (uint8_t& c : codes_) c = static_cast<uint8_t>(random());
    scales_.resize(scale_bytes(desc_.layout, desc_.m, desc_.k / block_size(desc_.format)));
    for (uint8_t& s : scales_) s = static_cast<uint8_t>(random() % 0x7F);
  }

  Support adapt(const DequantizeImpl& impl, const Device& device) const {
    return impl.can_implement(desc_, device.info());
  }
  std::vector<size_t> output_bytes() const {
    return {static_cast<size_t>(desc_.m * desc_.k) * size_of(desc_.dst_type)};
  }
  void initialize(Outputs&) const {}
  DequantizeArgs args(Outputs& out, Inputs& in) const {
    DequantizeArgs args;
    args.desc = desc_;
    args.codes = in(codes_);
    args.scales = in(scales_);
    args.global_decode_scale = 0.0123f;
    args.dst = {out[0].data(), desc_.dst_type, desc_.m, desc_.k, desc_.k};
    return args;
  }
  std::string compare(const Outputs& found, const Outputs& expected) const {
    return compare_bytes(found[0].bytes(), expected[0].bytes(), "values");
  }

 private:
  DequantizeDesc desc_;
  std::vector<uint8_t> codes_, scales_;
};

}  // namespace

void run_quantize_cases(const Device& device, std::string_view filter, const ResultSink& sink) {
  run_op<QuantizeImpl, QuantizeCase>(device, filter, sink);
  run_op<DequantizeImpl, DequantizeCase>(device, filter, sink);
}

}  // namespace nibble::cases
