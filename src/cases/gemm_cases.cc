#include <cmath>
#include <cstring>
#include <map>
#include <optional>

#include "cases/compare.h"
#include "cases/inputs.h"
#include "cases/runner.h"
#include "formats/float16.h"
#include "formats/mxfp4.h"
#include "formats/nvfp4.h"
#include "formats/scale_layout.h"

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
  point_at_own_memory();
  if (format != WeightFormat::kNvfp4) return;
  for (int i = 0; i < segments; ++i) {
    tensor.segments.push_back({n * i / segments, 0.01f * static_cast<float>(1 + random() % 1000)});
  }
}

RandomWeight::RandomWeight(const RandomWeight& other)
    : codes(other.codes), scales(other.scales), row_scales(other.row_scales), tensor(other.tensor) {
  point_at_own_memory();
}

void RandomWeight::point_at_own_memory() {
  tensor.codes = codes.data();
  tensor.scales = scales.empty() ? nullptr : scales.data();
  tensor.row_scales = row_scales.empty() ? nullptr : row_scales.data();
}

WeightTensor owned_copy(const RandomWeight& weight) {
  const auto copy = std::make_shared<const RandomWeight>(weight);
  WeightTensor tensor = copy->tensor;
  tensor.owner = copy;
  return tensor;
}

RandomWeight typical_weight(WeightFormat format, int64_t n, int64_t k, std::mt19937& random) {
  RandomWeight weight(format, n, k, 1, random);
  constexpr uint8_t kExponent = 0x78, kLeastNormal = 0x08;
  const auto make_normal = [](std::vector<uint8_t>& codes) {
    for (uint8_t& c : codes) {
      if ((c & kExponent) == 0) c |= kLeastNormal;
    }
  };
  if (format == WeightFormat::kNvfp4) make_normal(weight.scales);
  if (format == WeightFormat::kF8) make_normal(weight.codes);
  return weight;
}

PreparedWeights prepare_all(const WeightTensor& tensor, const Device& host, const Device& device,
                            std::span<const WeightLayoutImpl> more) {
  PreparedWeights prepared;
  for (const Device* d : {&host, &device}) {
    for (const auto layouts : {more, weight_layouts()}) {
      for (const WeightLayoutImpl& layout : layouts) {
        if (prepared.contains(layout.layout) || !layout.can_prepare(tensor, d->info())) continue;
        prepared.emplace(layout.layout, layout.prepare(tensor, d->stream()));
      }
    }
  }
  return prepared;
}

namespace {

// The spacing of the values of a type: two halves of it, one a rounding. Relative, and at the
// least.
struct Rounding {
  double relative, least;
};
Rounding rounding_of(DType type) {
  return type == DType::kF32    ? Rounding{0, 0}
         : type == DType::kBF16 ? Rounding{0x1p-7, 0}
                                : Rounding{0x1p-10, 0x1p-24};
}

uint16_t to_bits(DType type, float x) {
  return type == DType::kBF16 ? float_to_bf16(x) : float_to_fp16(x);
}
float from_bits(DType type, uint16_t bits) {
  return type == DType::kBF16 ? bf16_to_float(bits) : fp16_to_float(bits);
}

// The layout of that name, if there is one.
std::optional<ScaleLayout> find_layout(std::string_view name) {
  for (const auto layout :
       {ScaleLayout::kLinear, ScaleLayout::kSwizzled128x4, ScaleLayout::kSwizzled8x4}) {
    if (to_string(layout) == name) return layout;
  }
  return std::nullopt;
}

// Columns a and d are types; "any" activations are fp32 and, where an implementation wants them so,
// bf16 of the same values. A layout of scales instead of a type: a is quantized.
class GemmCase {
 public:
  GemmCase(const CaseRow& row, const Device& host, const Device& device,
           std::span<const WeightLayoutImpl> more = {})
      : random_(row.seed()),
        weight_(row.format("weight"), row.integer("n"), row.integer("k"),
                static_cast<int>(row.integer("segments")), random_) {
    desc_.m = row.integer("m");
    desc_.n = row.integer("n");
    desc_.k = row.integer("k");
    desc_.weight = row.format("weight");
    desc_.activation = row.activation("activation");
    desc_.d_type = row.dtype("d");
    desc_.num_segments = static_cast<int>(row.integer("segments"));
    desc_.has_c = row.integer("c") != 0;
    desc_.has_bias = row.integer("bias") != 0;
    desc_.silu_mul = row.integer("silu_mul") != 0;
    weight_.tensor.gate_up = desc_.silu_mul;
    a_stride_ = desc_.k + 8;  // rows that are not back to back
    a_ = random_values(desc_.m * a_stride_, random_);
    const bool any = row.text("a") == "any";
    const std::optional<ScaleLayout> given = find_layout(row.text("a"));
    const DType narrow = any ? DType::kBF16 : given ? DType::kU8 : row.dtype("a");
    // The same values for a device's kernels of 16-bit activations and for the reference.
    if (given) {
      quantize_a(*given);
    } else if (!any || device.info().kind == DeviceKind::kCuda) {
      for (float& a : a_) {
        a_bits_.push_back(to_bits(narrow, a));
        a = from_bits(narrow, a_bits_.back());
      }
    }
    a_types_ = {narrow};
    if (any) a_types_.insert(a_types_.begin(), DType::kF32);
    if (a_bits_.empty() && !given) a_types_.pop_back();
    // Sums that fp16 holds.
    for (WeightTensor::Segment& s : weight_.tensor.segments) {
      if (desc_.d_type == DType::kF16) s.global_decode_scale *= 0x1p-12f;
    }
    bias_ = random_values(desc_.n, random_);
    c_ = random_values(desc_.m * desc_.columns(), random_);
    if (desc_.d_type != DType::kF32) {
      for (float& c : c_) {
        c_bits_.push_back(to_bits(desc_.d_type, c));
        c = from_bits(desc_.d_type, c_bits_.back());
      }
    }
    if (desc_.activation == ActivationMode::kFp4 && row.seed() % 2 == 0) {
      weight_.tensor.input_decode_scale = 0.01f;
    }
    prepared_ = prepare_all(weight_.tensor, host, device, more);
    set_bounds();
  }

  Support adapt(const GemmImpl& impl, const Device& device) {
    Support last = Support::no("no layout can be prepared");
    for (const DType type : a_types_) {
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
    return {static_cast<size_t>(desc_.m * desc_.columns()) * size_of(desc_.d_type)};
  }
  void initialize(Outputs&) const {}

  GemmArgs args(Outputs& out, Inputs& in) const {
    GemmArgs args;
    args.desc = desc_;
    if (desc_.a_type == DType::kU8) {
      args.a = {in(a_codes_), desc_.a_type, desc_.m, desc_.k / 2, desc_.k / 2};
      args.a_scales = in(a_scales_);
      args.a_decode_scale = in(a_decode_);
    } else {
      void* const a = desc_.a_type == DType::kF32 ? static_cast<void*>(in(a_)) : in(a_bits_);
      args.a = {a, desc_.a_type, desc_.m, desc_.k, a_stride_};
    }
    args.b = current_;
    const int64_t columns = desc_.columns();
    args.d = {out[0].data(), desc_.d_type, desc_.m, columns, columns};
    if (desc_.has_c) {
      void* const c = desc_.d_type == DType::kF32 ? static_cast<void*>(in(c_)) : in(c_bits_);
      args.c = {c, desc_.d_type, desc_.m, columns, columns};
    }
    if (desc_.has_bias) args.bias = in(bias_);
    return args;
  }

  std::string compare(const Outputs& found, const Outputs& expected) const {
    const std::vector<float> got = widened(found[0]), want = widened(expected[0]);
    const int64_t columns = desc_.columns();
    const Rounding rounding = rounding_of(desc_.d_type);
    return cases::compare(got, want, columns, [&](int64_t at) {
      const int64_t i = at / columns, j = at % columns;
      const double c = desc_.has_c ? std::fabs(c_[at]) : 0.0;
      double bound = sum_bound(i, j);
      if (desc_.silu_mul) {
        // y = silu(g) u, |silu'| < 1.1, and an exponential of g to (4 |g| + 8) epsilon.
        const double g = y_[i * desc_.n + j], u = y_[i * desc_.n + columns + j];
        const double gate = g / (1 + std::exp(-g)), error = sum_bound(i, columns + j);
        bound = 1.1 * bound * (std::fabs(u) + error) + std::fabs(gate) * error +
                kEpsilon * (4 * std::fabs(g) + 8) * std::fabs(gate * u);
      }
      return bound + kEpsilon * 2 * (std::fabs(want[at]) + c) +
             rounding.relative * std::fabs(want[at]) + rounding.least;
    });
  }

 private:
  static constexpr double kEpsilon = 0x1p-24;

  // The padding is full of NaN.
  void quantize_a(ScaleLayout layout) {
    const int64_t block = block_size(desc_.weight), columns = desc_.k / block;
    const bool mx = desc_.weight == WeightFormat::kMxfp4;
    desc_.a_layout = layout;
    a_decode_ = {0.01f};
    a_codes_.resize(desc_.m * desc_.k / 2);
    a_scales_.assign(scale_bytes(layout, desc_.m, columns), 0xFF);
    for (int64_t i = 0; i < desc_.m; ++i) {
      for (int64_t j = 0; j < columns; ++j) {
        const float* const x = &a_[i * a_stride_ + j * block];
        uint8_t* const codes = &a_codes_[(i * desc_.k + j * block) / 2];
        a_scales_[scale_offset(layout, i, j, columns)] =
            mx ? quantize_mxfp4_block(x, Mxfp4ScaleRule::kCeil, codes)
               : quantize_nvfp4_block(x, 1.0f / a_decode_[0], codes);
      }
    }
  }

  std::vector<float> widened(const GuardedBuffer& out) const {
    std::vector<float> values(desc_.m * desc_.columns());
    if (desc_.d_type == DType::kF32) {
      std::memcpy(values.data(), out.bytes().data(), out.bytes().size());
      return values;
    }
    for (size_t i = 0; i < values.size(); ++i) {
      uint16_t bits;
      std::memcpy(&bits, &out.bytes()[2 * i], 2);
      values[i] = from_bits(desc_.d_type, bits);
    }
    return values;
  }

  // |computed - exact| <= length * epsilon * sum |a_k b_k| for fp32 sums (Higham, Accuracy and
  // Stability of Numerical Algorithms, section 3.1), where length is the longest chain of additions
  // that a product goes through; and sum |a_k b_k| <= |a| |b|. Every kernel keeps at least 8
  // partial sums.
  double sum_bound(int64_t i, int64_t j) const {
    const double bias = desc_.has_bias ? 4 * std::fabs(bias_[j]) : 0.0;
    return kEpsilon * (sum_length_ * a_norm_[i] * b_norm_[j] + bias);
  }

  void set_bounds() {
    sum_length_ = static_cast<double>(desc_.k) / 8 + 24;
    for (int64_t i = 0; i < desc_.m; ++i) {
      double sum = 0;
      for (int64_t k = 0; k < desc_.k; ++k) sum += std::pow(a_[i * a_stride_ + k], 2);
      a_norm_.push_back(1.25 * std::sqrt(sum));  // quantizing may lengthen a row
    }
    const PreparedWeight& any = prepared_.begin()->second;
    std::vector<float> row(desc_.k);
    if (desc_.silu_mul) y_.resize(desc_.m * desc_.n);
    for (int64_t j = 0; j < desc_.n; ++j) {
      any.decode_row(any, j, row.data());
      double sum = 0;
      for (const float b : row) sum += static_cast<double>(b) * b;
      b_norm_.push_back(std::sqrt(sum) * any.alpha(j));
      for (int64_t i = 0; i < desc_.m && desc_.silu_mul; ++i) {
        double y = 0;
        for (int64_t k = 0; k < desc_.k; ++k) y += double{a_[i * a_stride_ + k]} * row[k];
        y_[i * desc_.n + j] = any.alpha(j) * y + (desc_.has_bias ? bias_[j] : 0.0);
      }
    }
  }

  std::mt19937 random_;
  RandomWeight weight_;
  GemmDesc desc_;
  int64_t a_stride_ = 0;
  std::vector<float> a_, c_, bias_;
  std::vector<uint16_t> a_bits_, c_bits_;  // a_ and c_ in 16 bits
  std::vector<uint8_t> a_codes_, a_scales_;
  std::vector<float> a_decode_;  // one
  std::vector<DType> a_types_;   // that a can be had in
  PreparedWeights prepared_;
  const PreparedWeight* current_ = nullptr;
  double sum_length_ = 0;
  std::vector<double> a_norm_, b_norm_;
  std::vector<double> y_;  // with silu_mul: A * B^T and its bias
};

}  // namespace

void run_gemm_cases(const Device& device, std::string_view filter, const ResultSink& sink,
                    const KernelList& more) {
  run_op<GemmImpl, GemmCase>(device, filter, sink, more.gemm, more.weight_layout);
}

}  // namespace nibble::cases
