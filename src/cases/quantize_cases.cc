#include <bit>
#include <cmath>
#include <cstring>

#include "cases/compare.h"
#include "cases/inputs.h"
#include "cases/runner.h"
#include "formats/float16.h"
#include "formats/nvfp4.h"
#include "formats/scale_layout.h"

namespace nibble::cases {
namespace {

std::vector<uint8_t> encode(const std::vector<float>& values, DType type) {
  std::vector<uint8_t> bytes(values.size() * size_of(type));
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t half =
        type == DType::kBF16 ? float_to_bf16(values[i]) : float_to_fp16(values[i]);
    if (type == DType::kF32) {
      std::memcpy(&bytes[4 * i], &values[i], 4);
    } else {
      std::memcpy(&bytes[2 * i], &half, 2);
    }
  }
  return bytes;
}

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
    for (int i = 0; i < 3; ++i) {
      if (row.text("global") == kGlobals[i]) desc_.global = static_cast<GlobalScale>(i);
    }
    stride_ = desc_.k + row.integer("pad");
    std::mt19937 random(row.seed());
    std::vector<float> values = random_values(desc_.m * stride_, random);
    // Whole blocks of zeros, tiny and huge values, and single values that are not finite.
    for (int64_t i = 0; i + 16 <= static_cast<int64_t>(values.size()); i += 16) {
      const uint32_t kind = random() % 12;
      const float factor = kind == 0 ? 0.0f : kind == 1 ? 1e-6f : kind == 2 ? 1e4f : 1.0f;
      for (int64_t j = i; j < i + 16; ++j) values[j] *= factor;
      if (kind == 3) values[i + random() % 16] = NAN;
      // An infinite amax would give a computed global scale of 1.
      if (kind == 4 && desc_.global != GlobalScale::kComputed)
        values[i + random() % 16] = -INFINITY;
      if (kind == 5) values[i + random() % 16] = -0.0f;
    }
    src_ = encode(values, desc_.src_type);
    global_decode_scale_ = nvfp4_decode_scale(30.0f);
  }

  Support adapt(const QuantizeImpl& impl, const Device& device) const {
    return impl.can_implement(desc_, device.info());
  }
  std::vector<size_t> output_bytes() const {
    return {
        static_cast<size_t>(desc_.m * desc_.k / 2),
        static_cast<size_t>(scale_bytes(desc_.layout, desc_.m, desc_.k / block_size(desc_.format))),
        sizeof(float)};
  }
  void initialize(Outputs& out) const {
    if (desc_.global != GlobalScale::kMemory) return;
    std::memcpy(out[2].host(), &global_decode_scale_, sizeof(float));
  }
  QuantizeArgs args(Outputs& out, Inputs& in) const {
    QuantizeArgs args;
    args.desc = desc_;
    args.src = {in(src_), desc_.src_type, desc_.m, desc_.k, stride_};
    args.global_decode_scale = global_decode_scale_;
    args.scale_memory = reinterpret_cast<float*>(out[2].data());
    args.codes = out[0].data();
    args.scales = out[1].data();
    return args;
  }
  std::string compare(const Outputs& found, const Outputs& expected) const {
    std::string wrong = compare_bytes(found[2].bytes(), expected[2].bytes(), "global scale");
    if (wrong.empty()) wrong = compare_bytes(found[1].bytes(), expected[1].bytes(), "scales");
    if (wrong.empty()) wrong = compare_bytes(found[0].bytes(), expected[0].bytes(), "codes");
    return wrong;
  }

 private:
  QuantizeDesc desc_;
  int64_t stride_ = 0;
  std::vector<uint8_t> src_;
  float global_decode_scale_ = 1.0f;
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
