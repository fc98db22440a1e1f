#include <cmath>
#include <cstring>
#include <map>

#include "cases/compare.h"
#include "cases/inputs.h"
#include "cases/runner.h"
#include "formats/float16.h"

namespace nibble::cases {

RandomWeight::RandomWeight(WeightFormat format, int64_t n, int64_t k, int segments,
                           std::mt19937& random) {
  tensor.name = "case";
  tensor.format = format;
  tensor.n = n;
  tensor.k = k;
  codes.resize(n * row_bytes(format, k));
  if (is_fp4(format)) {
    for (uint8_t& c : codes) c = static_cast<uint8_t>(random());
    scales.resize(n * (k / block_size(format)));
    // e4m3 from subnormal to 448, zero among them; ue8m0 over 24 binades.
    for (uint8_t& s : scales) {
      s = static_cast<uint8_t>(format == WeightFormat::kNvfp4 ? random() % 0x7F
                                                              : 115 + random() % 24);
    }
  } else if (format == WeightFormat::kF8) {
    for (uint8_t& c : codes) c = static_cast<uint8_t>(random() % 0x7F | (random() & 0x80));
    row_scales.resize(n);
    for (float& s : row_scales) s = 0.001f * static_cast<float>(1 + random() % 100);
  } else {
    const std::vector<float> values = random_values(n * k, random);
    for (int64_t i = 0; i < n * k; ++i) {
      const uint16_t bits =
          format == WeightFormat::kBF16 ? float_to_bf16(values[i]) : float_to_fp16(values[i]);
      if (format == WeightFormat::kF32) {
        std::memcpy(&codes[4 * i], &values[i], 4);
      } else {
        std::memcpy(&codes[2 * i], &bits, 2);
      }
    }
  }
  tensor.codes = codes.data();
  tensor.scales = scales.empty() ? nullptr : scales.data();
  tensor.row_scales = row_scales.empty() ? nullptr : row_scales.data();
  if (format != WeightFormat::kNvfp4) return;
  for (int i = 0; i < segments; ++i) {
    tensor.segments.push_back({n * i / segments, 0.01f * static_cast<float>(1 + random() % 1000)});
  }
}

PreparedWeights prepare_all(const WeightTensor& tensor, const Device& host, const Device& device) {
  PreparedWeights prepared;
  for (const Device* d : {&host, &device}) {
    for (const WeightLayoutImpl& layout : weight_layouts()) {
      if (prepared.contains(layout.layout) || !layout.can_prepare(tensor, d->info())) continue;
      prepared.emplace(layout.layout, layout.prepare(tensor, d->stream()));
    }
  }
  return prepared;
}

namespace {

class GemmCase {
 public:
  GemmCase(const CaseRow& row, const Device& host, const Device& device)
      : random_(row.seed()),
        weight_(row.format("weight"), row.integer("n"), row.integer("k"),
                static_cast<int>(row.integer("segments")), random_) {
    desc_.m = row.integer("m");
    desc_.n = row.integer("n");
    desc_.k = row.integer("k");
    desc_.weight = row.format("weight");
    desc_.activation = row.activation("activation");
    desc_.num_segments = static_cast<int>(row.integer("segments"));
    desc_.has_c = row.integer("c") != 0;
    a_stride_ = desc_.k + 8;  // rows that are not back to back
    a_ = random_values(desc_.m * a_stride_, random_);
    // The same values for a device's kernels of 16-bit activations and for the reference.
    if (device.info().kind == DeviceKind::kCuda) {
      for (float& a : a_) {
        a_bf16_.push_back(float_to_bf16(a));
        a = bf16_to_float(a_bf16_.back());
      }
    }
    c_ = random_values(desc_.m * desc_.n, random_);
    if (desc_.activation == ActivationMode::kFp4 && row.seed() % 2 == 0) {
      weight_.tensor.input_decode_scale = 0.01f;
    }
    prepared_ = prepare_all(weight_.tensor, host, device);
    set_bounds();
  }

  Support adapt(const GemmImpl& impl, const Device& device) {
    Support last = Support::no("no layout can be prepared");
    for (const DType type : {DType::kF32, DType::kBF16}) {
      if (type == DType::kBF16 && a_bf16_.empty()) break;
      desc_.a_type = type;
      for (const auto& [layout, weight] : prepared_) {
        desc_.layout = layout;
        current_ = &weight;
        last = impl.can_implement(desc_, device.info());
        if (last) return last;
      }
    }
    return last;
  }

  std::vector<size_t> output_bytes() const {
    return {static_cast<size_t>(desc_.m * desc_.n) * sizeof(float)};
  }
  void initialize(Outputs&) const {}

  GemmArgs args(Outputs& out, Inputs& in) const {
    GemmArgs args;
    args.desc = desc_;
    void* const a = desc_.a_type == DType::kBF16 ? static_cast<void*>(in(a_bf16_)) : in(a_);
    args.a = {a, desc_.a_type, desc_.m, desc_.k, a_stride_};
    args.b = current_;
    args.d = {out[0].data(), DType::kF32, desc_.m, desc_.n, desc_.n};
    if (desc_.has_c) {
      args.c = {in(c_), DType::kF32, desc_.m, desc_.n, desc_.n};
    }
    return args;
  }

  std::string compare(const Outputs& found, const Outputs& expected) const {
    const auto view = [](const Outputs& out) {
      const auto bytes = out[0].bytes();
      return std::span<const float>(reinterpret_cast<const float*>(bytes.data()),
                                    bytes.size() / sizeof(float));
    };
    const auto want = view(expected);
    return cases::compare(view(found), want, desc_.n, [&](int64_t i) {
      const double c = desc_.has_c ? std::fabs(c_[i]) : 0.0;
      return kEpsilon * (sum_length_ * a_norm_[i / desc_.n] * b_norm_[i % desc_.n] +
                         2 * (std::fabs(want[i]) + c));
    });
  }

 private:
  static constexpr double kEpsilon = 0x1p-24;

  // |computed - exact| <= length * epsilon * sum |a_k b_k| for fp32 sums (Higham, Accuracy and
  // Stability of Numerical Algorithms, section 3.1), where length is the longest chain of additions
  // that a product goes through; and sum |a_k b_k| <= |a| |b|. Every kernel keeps at least 8
  // partial sums.
  void set_bounds() {
    sum_length_ = static_cast<double>(desc_.k) / 8 + 24;
    for (int64_t i = 0; i < desc_.m; ++i) {
      double sum = 0;
      for (int64_t k = 0; k < desc_.k; ++k) sum += std::pow(a_[i * a_stride_ + k], 2);
      a_norm_.push_back(1.25 * std::sqrt(sum));  // quantizing may lengthen a row
    }
    const PreparedWeight& any = prepared_.begin()->second;
    std::vector<float> row(desc_.k);
    for (int64_t j = 0; j < desc_.n; ++j) {
      any.decode_row(any, j, row.data());
      double sum = 0;
      for (const float b : row) sum += static_cast<double>(b) * b;
      b_norm_.push_back(std::sqrt(sum) * any.alpha(j));
    }
  }

  std::mt19937 random_;
  RandomWeight weight_;
  GemmDesc desc_;
  int64_t a_stride_ = 0;
  std::vector<float> a_, c_;
  std::vector<uint16_t> a_bf16_;  // a_, for CUDA devices
  PreparedWeights prepared_;
  const PreparedWeight* current_ = nullptr;
  double sum_length_ = 0;
  std::vector<double> a_norm_, b_norm_;
};

}  // namespace

void run_gemm_cases(const Device& device, std::string_view filter, const ResultSink& sink) {
  run_op<GemmImpl, GemmCase>(device, filter, sink);
}

}  // namespace nibble::cases
