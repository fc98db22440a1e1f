#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "cases/compare.h"
#include "cases/inputs.h"
#include "cases/runner.h"

namespace nibble::cases {
namespace {

constexpr double kEpsilon = 0x1p-24;

std::span<const float> floats(const Outputs& out) {
  const auto bytes = out[0].bytes();
  return {reinterpret_cast<const float*>(bytes.data()), bytes.size() / sizeof(float)};
}

MatrixView view(const void* data, int64_t rows, int64_t cols) {
  return {const_cast<void*>(data), DType::kF32, rows, cols, cols};
}

double largest(const std::vector<float>& values) {
  double m = 0;
  for (const float v : values) m = std::max(m, static_cast<double>(std::fabs(v)));
  return m;
}

// What the cases with one fp32 output matrix share.
class MatrixCase {
 public:
  std::vector<size_t> output_bytes() const {
    return {static_cast<size_t>(rows_ * cols_) * sizeof(float)};
  }
  void initialize(Outputs&) const {}

 protected:
  MatrixCase(const CaseRow& row, int64_t rows, int64_t cols)
      : random_(row.seed()), rows_(rows), cols_(cols) {}
  MatrixView out(Outputs& outputs) const { return view(outputs[0].data(), rows_, cols_); }

  std::mt19937 random_;
  int64_t rows_, cols_;
};

class RmsNormCase : public MatrixCase {
 public:
  RmsNormCase(const CaseRow& row, const Device&, const Device&)
      : MatrixCase(row, row.integer("rows"), row.integer("cols")),
        x_(random_values(rows_ * cols_, random_)),
        weight_(random_values(cols_, random_)) {}
  RmsNormDesc desc() const { return {rows_, cols_, DType::kF32}; }
  Support adapt(const RmsNormImpl& impl, const Device& d) const {
    return impl.can_implement(desc(), d.info());
  }
  RmsNormArgs args(Outputs& o, Inputs& in) const {
    return {desc(), view(in(x_), rows_, cols_), in(weight_), 1e-5f, out(o)};
  }
  // A sum of squares is off by at most its chain's length, its root by half of that.
  std::string compare(const Outputs& found, const Outputs& expected) const {
    const auto want = floats(expected);
    const double length = static_cast<double>(cols_) / 16 + 16;
    return cases::compare(floats(found), want, cols_,
                          [&](int64_t i) { return length * kEpsilon * std::fabs(want[i]); });
  }

 private:
  std::vector<float> x_, weight_;
};

class RopeCase : public MatrixCase {
 public:
  RopeCase(const CaseRow& row, const Device&, const Device&)
      : MatrixCase(row, row.integer("rows"), row.integer("heads") * row.integer("head_dim")),
        heads_(row.integer("heads")),
        head_dim_(row.integer("head_dim")),
        x_(random_values(rows_ * cols_, random_)) {
    for (int64_t i = 0; i < rows_; ++i) {
      positions_.push_back(static_cast<int32_t>(row.integer("first_position") + i));
    }
    for (int64_t i = 0; i < head_dim_ / 2; ++i) {
      inv_freq_.push_back(static_cast<float>(
          std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim_))));
    }
  }
  RopeDesc desc() const { return {rows_, heads_, head_dim_, DType::kF32}; }
  Support adapt(const RopeImpl& impl, const Device& d) const {
    return impl.can_implement(desc(), d.info());
  }
  void initialize(Outputs& o) const { std::memcpy(o[0].host(), x_.data(), 4 * x_.size()); }
  RopeArgs args(Outputs& o, Inputs& in) const {
    return {desc(), out(o), in(positions_), in(inv_freq_), 1.0f};
  }
  // Two products and a sum, sine and cosine within two units in the last place of 1.
  std::string compare(const Outputs& found, const Outputs& expected) const {
    const double bound = 8 * kEpsilon * largest(x_);
    return cases::compare(floats(found), floats(expected), cols_, [&](int64_t) { return bound; });
  }

 private:
  int64_t heads_, head_dim_;
  std::vector<float> x_, inv_freq_;
  std::vector<int32_t> positions_;
};

class AttentionCase : public MatrixCase {
 public:
  AttentionCase(const CaseRow& row, const Device&, const Device&)
      : MatrixCase(row, row.integer("rows"), row.integer("heads") * row.integer("head_dim")) {
    desc_ = {.rows = rows_,
             .kv_len = row.integer("kv_len"),
             .heads = row.integer("heads"),
             .kv_heads = row.integer("kv_heads"),
             .head_dim = row.integer("head_dim")};
    stride_ = (desc_.kv_len + 3) * desc_.head_dim;  // room for more positions, never to be read
    q_ = random_values(rows_ * cols_, random_);
    k_ = random_values(desc_.kv_heads * stride_, random_);
    v_ = random_values(desc_.kv_heads * stride_, random_);
    for (int64_t head = 0; head < desc_.kv_heads; ++head) {
      const int64_t used = head * stride_ + desc_.kv_len * desc_.head_dim;
      std::fill_n(&k_[used], 3 * desc_.head_dim, NAN);
      std::fill_n(&v_[used], 3 * desc_.head_dim, NAN);
    }
    scale_ = 1.0f / std::sqrt(static_cast<float>(desc_.head_dim));
  }
  Support adapt(const AttentionImpl& impl, const Device& d) const {
    return impl.can_implement(desc_, d.info());
  }
  AttentionArgs args(Outputs& o, Inputs& in) const {
    return {desc_, view(in(q_), rows_, cols_), in(k_), in(v_), stride_, scale_, out(o)};
  }
  // A score q.k is off by (chain length) * epsilon * |q||k| * scale; p = exp(score) by the same
  // relative amount, and every output is a mean of v under p.
  std::string compare(const Outputs& found, const Outputs& expected) const {
    const auto dim = static_cast<double>(desc_.head_dim);
    double q_norm = 0, k_norm = 0, v_largest = 0;
    for (int64_t i = 0; i < rows_ * desc_.heads; ++i) {
      q_norm = std::max(q_norm, norm(&q_[i * desc_.head_dim]));
    }
    for (int64_t head = 0; head < desc_.kv_heads; ++head) {
      for (int64_t t = 0; t < desc_.kv_len; ++t) {
        const int64_t at = head * stride_ + t * desc_.head_dim;
        k_norm = std::max(k_norm, norm(&k_[at]));
        for (int64_t i = 0; i < desc_.head_dim; ++i) {
          v_largest = std::max(v_largest, static_cast<double>(std::fabs(v_[at + i])));
        }
      }
    }
    const double score_error = (dim / 8 + 8) * q_norm * k_norm * scale_;
    const double bound =
        kEpsilon * v_largest * (2 * score_error + static_cast<double>(desc_.kv_len) / 8 + 32);
    return cases::compare(floats(found), floats(expected), cols_, [&](int64_t) { return bound; });
  }

 private:
  double norm(const float* x) const {
    double sum = 0;
    for (int64_t i = 0; i < desc_.head_dim; ++i) sum += static_cast<double>(x[i]) * x[i];
    return std::sqrt(sum);
  }

  AttentionDesc desc_;
  int64_t stride_ = 0;
  float scale_ = 1.0f;
  std::vector<float> q_, k_, v_;
};

class SiluMulCase : public MatrixCase {
 public:
  SiluMulCase(const CaseRow& row, const Device&, const Device&)
      : MatrixCase(row, row.integer("rows"), row.integer("cols")),
        x_(random_values(rows_ * cols_ * 2, random_)) {
    x_[0] = -1000.0f;  // exp overflows
    if (cols_ > 1) x_[1] = 1000.0f;
  }
  SiluMulDesc desc() const { return {rows_, cols_, DType::kF32}; }
  Support adapt(const SiluMulImpl& impl, const Device& d) const {
    return impl.can_implement(desc(), d.info());
  }
  SiluMulArgs args(Outputs& o, Inputs& in) const {
    return {desc(), view(in(x_), rows_, 2 * cols_), out(o)};
  }
  // exp within four units in the last place, a sum, a quotient, a product. Below e^-80 an
  // approximation of exp may stop: results there are under 1e-33.
  std::string compare(const Outputs& found, const Outputs& expected) const {
    const auto want = floats(expected);
    return cases::compare(floats(found), want, cols_,
                          [&](int64_t i) { return 16 * kEpsilon * std::fabs(want[i]) + 1e-30; });
  }

 private:
  std::vector<float> x_;
};

class EmbeddingCase : public MatrixCase {
 public:
  EmbeddingCase(const CaseRow& row, const Device& host, const Device& device)
      : MatrixCase(row, row.integer("rows"), row.integer("cols")),
        weight_(row.format("format"), row.integer("vocab"), cols_, 1, random_) {
    for (int64_t i = 0; i < rows_; ++i) {
      tokens_.push_back(static_cast<int32_t>(random_() % row.integer("vocab")));
    }
    tokens_[0] = static_cast<int32_t>(row.integer("vocab")) - 1;
    prepared_ = prepare_all(weight_.tensor, host, device);
    desc_ = {.rows = rows_, .cols = cols_, .format = row.format("format")};
  }
  Support adapt(const EmbeddingImpl& impl, const Device& d) {
    Support last = Support::no("no layout can be prepared");
    for (const auto& [layout, weight] : prepared_) {
      desc_.layout = layout;
      current_ = &weight;
      last = impl.can_implement(desc_, d.info());
      if (last) return last;
    }
    return last;
  }
  EmbeddingArgs args(Outputs& o, Inputs&) const {
    return {desc_, tokens_.data(), current_, out(o)};
  }
  // code * block scale is exact; one rounding where a global scale multiplies it.
  std::string compare(const Outputs& found, const Outputs& expected) const {
    return cases::compare(floats(found), floats(expected), cols_, [](int64_t) { return 0.0; });
  }

 private:
  RandomWeight weight_;
  EmbeddingDesc desc_;
  std::vector<int32_t> tokens_;
  PreparedWeights prepared_;
  const PreparedWeight* current_ = nullptr;
};

// One draw; the rows of the case file differ in what is cut.
class SamplingCase {
 public:
  SamplingCase(const CaseRow& row, const Device&, const Device&)
      : desc_{.vocab = row.integer("vocab"),
              .temperature = row.number("temperature"),
              .top_k = row.integer("top_k"),
              .top_p = row.number("top_p"),
              .min_p = row.number("min_p")} {
    std::mt19937 random(row.seed());
    logits_ = random_values(desc_.vocab, random);
    uniform_ = std::uniform_real_distribution<double>()(random);
  }
  Support adapt(const SamplingImpl& impl, const Device& d) const {
    return impl.can_implement(desc_, d.info());
  }
  std::vector<size_t> output_bytes() const { return {sizeof(int32_t)}; }
  void initialize(Outputs&) const {}
  SamplingArgs args(Outputs& o, Inputs& in) const {
    return {desc_, in(logits_), uniform_, reinterpret_cast<int32_t*>(o[0].data())};
  }
  std::string compare(const Outputs& found, const Outputs& expected) const {
    return compare_bytes(found[0].bytes(), expected[0].bytes(), "token");
  }

 private:
  SamplingDesc desc_;
  std::vector<float> logits_;
  double uniform_ = 0.0;
};

}  // namespace

void run_model_op_cases(const Device& device, std::string_view filter, const ResultSink& sink) {
  run_op<RmsNormImpl, RmsNormCase>(device, filter, sink);
  run_op<RopeImpl, RopeCase>(device, filter, sink);
  run_op<AttentionImpl, AttentionCase>(device, filter, sink);
  run_op<SiluMulImpl, SiluMulCase>(device, filter, sink);
  run_op<EmbeddingImpl, EmbeddingCase>(device, filter, sink);
  run_op<SamplingImpl, SamplingCase>(device, filter, sink);
}

}  // namespace nibble::cases
