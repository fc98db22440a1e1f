// What every implementation may rely on: checked once, before one is selected.
#include <cmath>

#include "base/check.h"
#include "ops/gemm.h"
#include "ops/model_ops.h"
#include "ops/quantize.h"

namespace nibble {
namespace {

constexpr auto kBad = ErrorCode::kInvalidArgument;
constexpr int64_t kMaxDim = (int64_t{1} << 31) - 1;

void check_dim(const char* op, const char* name, int64_t value) {
  NIBBLE_CHECK(value >= 1 && value <= kMaxDim, kBad, "{}: {} must be 1 .. {}, found {}", op, name,
               kMaxDim, value);
}

void check_pointer(const char* op, const char* name, const void* p) {
  NIBBLE_CHECK(p != nullptr, kBad, "{}: {} is null", op, name);
}

void check_view(const char* op, const char* name, const MatrixView& v, int64_t rows, int64_t cols,
                DType type) {
  check_pointer(op, name, v.data);
  NIBBLE_CHECK(v.rows == rows && v.cols == cols, kBad, "{}: {} must be [{}, {}], found [{}, {}]",
               op, name, rows, cols, v.rows, v.cols);
  NIBBLE_CHECK(v.stride >= cols || rows == 1, kBad,
               "{}: {} has rows {} elements apart, expected at least {}", op, name, v.stride, cols);
  NIBBLE_CHECK(v.dtype == type, kBad, "{}: {} must be {}, found {}", op, name, to_string(type),
               to_string(v.dtype));
}

void check_block(const char* op, WeightFormat format, int64_t k) {
  NIBBLE_CHECK(is_fp4(format), kBad, "{}: format must be nvfp4 or mxfp4, found {}", op,
               to_string(format));
  NIBBLE_CHECK(k % block_size(format) == 0, kBad, "{}: k must be a multiple of {} for {}, found {}",
               op, block_size(format), to_string(format), k);
}

void check_global_scale(const char* op, float scale) {
  NIBBLE_CHECK(std::isfinite(scale) && scale > 0, kBad,
               "{}: global_decode_scale must be finite and positive, found {}", op, scale);
}

}  // namespace

void validate(const GemmArgs& args) {
  const GemmDesc& d = args.desc;
  check_dim("gemm", "m", d.m);
  check_dim("gemm", "n", d.n);
  check_dim("gemm", "k", d.k);
  check_pointer("gemm", "b", args.b);
  const PreparedWeight& b = *args.b;
  NIBBLE_CHECK(b.n == d.n && b.k == d.k && b.format == d.weight && b.layout == d.layout, kBad,
               "gemm: b ({}) must be {} {} [{}, {}], found {} {} [{}, {}]", b.name,
               to_string(d.weight), to_string(d.layout), d.n, d.k, to_string(b.format),
               to_string(b.layout), b.n, b.k);
  const bool a_quantized = d.a_type == DType::kU8, d_quantized = d.d_type == DType::kU8;
  check_view("gemm", "a", args.a, d.m, a_quantized ? d.k / 2 : d.k, d.a_type);
  if (a_quantized) {
    NIBBLE_CHECK(d.activation == ActivationMode::kFp4, kBad,
                 "gemm: quantized activations are for mode fp4, found {}", to_string(d.activation));
    check_block("gemm", d.weight, d.k);
    check_pointer("gemm", "a_scales", args.a_scales);
    if (d.weight == WeightFormat::kNvfp4) {
      check_pointer("gemm", "a_decode_scale", args.a_decode_scale);
    }
  }
  NIBBLE_CHECK(
      b.gate_up == d.silu_mul, kBad,
      "gemm: b ({}) {}, but silu_mul is {}: rows of gate and up are prepared for that alone",
      b.name, b.gate_up ? "is gate and up" : "is not gate and up", d.silu_mul);
  NIBBLE_CHECK(!d.silu_mul || d.n % 2 == 0, kBad, "gemm: silu_mul needs an even n, found {}", d.n);
  check_view("gemm", "d", args.d, d.m, d_quantized ? d.columns() / 2 : d.columns(), d.d_type);
  if (d_quantized) {
    NIBBLE_CHECK(!d.has_c, kBad, "gemm: a quantized D goes without C");
    NIBBLE_CHECK(d.columns() % block_size(WeightFormat::kNvfp4) == 0, kBad,
                 "gemm: D's columns must be a multiple of {} to be quantized, found {}",
                 block_size(WeightFormat::kNvfp4), d.columns());
    check_pointer("gemm", "d_scales", args.d_scales);
    check_pointer("gemm", "d_decode_scale", args.d_decode_scale);
  }
  if (d.has_c) check_view("gemm", "c", args.c, d.m, d.columns(), d.d_type);
  if (d.has_bias) check_pointer("gemm", "bias", args.bias);
}

namespace {

void check_quantize_input(const QuantizeArgs& args) {
  const QuantizeDesc& d = args.desc;
  const bool fused = d.input != QuantizeInput::kPlain;
  check_view("quantize", "src", args.src, d.m, d.input == QuantizeInput::kSiluMul ? 2 * d.k : d.k,
             d.src_type);
  NIBBLE_CHECK(!fused || d.global != GlobalScale::kComputed, kBad,
               "quantize: the global scale of silu_mul and rms_norm must be given: computing it "
               "takes them as ops of their own");
  if (d.src_type == DType::kF8E4M3) {
    NIBBLE_CHECK(!fused, kBad, "quantize: silu_mul and rms_norm take F32, F16 or BF16, found {}",
                 to_string(d.src_type));
    NIBBLE_CHECK(std::isfinite(args.src_scale) && args.src_scale > 0, kBad,
                 "quantize: src_scale must be finite and positive, found {}", args.src_scale);
  }
  NIBBLE_CHECK(!d.has_residual || d.input == QuantizeInput::kRmsNorm, kBad,
               "quantize: a residual goes with rms_norm");
  if (d.input != QuantizeInput::kRmsNorm) return;
  check_pointer("quantize", "norm_weight", args.norm_weight);
  NIBBLE_CHECK(args.norm_eps >= 0, kBad, "quantize: norm_eps must be at least 0, found {}",
               args.norm_eps);
  if (d.has_residual) check_view("quantize", "residual", args.residual, d.m, d.k, d.src_type);
}

void check_experts(const QuantizeArgs& args) {
  const QuantizeDesc& d = args.desc;
  NIBBLE_CHECK(d.experts >= 0 && d.experts <= kMaxDim, kBad,
               "quantize: experts must be 0 .. {}, found {}", kMaxDim, d.experts);
  if (d.ragged) {
    NIBBLE_CHECK(d.experts > 0, kBad, "quantize: ragged rows need experts");
    check_pointer("quantize", "expert_offsets", args.expert_offsets);
  } else if (d.experts > 0) {
    NIBBLE_CHECK(d.m % d.experts == 0, kBad,
                 "quantize: m must be a multiple of experts = {}, found {}", d.experts, d.m);
  }
}

}  // namespace

void validate(const QuantizeArgs& args) {
  const QuantizeDesc& d = args.desc;
  check_dim("quantize", "m", d.m);
  check_dim("quantize", "k", d.k);
  check_block("quantize", d.format, d.k);
  NIBBLE_CHECK(d.method != QuantizeMethod::kFourOverSix || d.format == WeightFormat::kNvfp4, kBad,
               "quantize: method four-over-six is for nvfp4, found {}", to_string(d.format));
  check_quantize_input(args);
  check_experts(args);
  check_pointer("quantize", "codes", args.codes);
  check_pointer("quantize", "scales", args.scales);
  if (d.global != GlobalScale::kValue) {
    NIBBLE_CHECK(d.format == WeightFormat::kNvfp4, kBad, "quantize: {} has no global scale",
                 to_string(d.format));
    check_pointer("quantize", "scale_memory", args.scale_memory);
  } else if (d.format == WeightFormat::kNvfp4) {
    check_global_scale("quantize", args.global_decode_scale);
  }
}

void validate(const DequantizeArgs& args) {
  const DequantizeDesc& d = args.desc;
  check_dim("dequantize", "m", d.m);
  check_dim("dequantize", "k", d.k);
  check_block("dequantize", d.format, d.k);
  check_view("dequantize", "dst", args.dst, d.m, d.k, d.dst_type);
  check_pointer("dequantize", "codes", args.codes);
  check_pointer("dequantize", "scales", args.scales);
  if (d.format == WeightFormat::kNvfp4) check_global_scale("dequantize", args.global_decode_scale);
}

void validate(const RmsNormArgs& args) {
  const RmsNormDesc& d = args.desc;
  check_dim("rms_norm", "rows", d.rows);
  check_dim("rms_norm", "cols", d.cols);
  check_view("rms_norm", "x", args.x, d.rows, d.cols, d.type);
  check_view("rms_norm", "y", args.y, d.rows, d.cols, d.type);
  check_pointer("rms_norm", "weight", args.weight);
  NIBBLE_CHECK(args.eps >= 0, kBad, "rms_norm: eps must be at least 0, found {}", args.eps);
}

void validate(const RopeArgs& args) {
  const RopeDesc& d = args.desc;
  check_dim("rope", "rows", d.rows);
  check_dim("rope", "heads", d.heads);
  check_dim("rope", "head_dim", d.head_dim);
  NIBBLE_CHECK(d.head_dim % 2 == 0, kBad, "rope: head_dim must be even, found {}", d.head_dim);
  check_view("rope", "x", args.x, d.rows, d.heads * d.head_dim, d.type);
  check_pointer("rope", "positions", args.positions);
  check_pointer("rope", "inv_freq", args.inv_freq);
}

void validate(const AttentionArgs& args) {
  const AttentionDesc& d = args.desc;
  check_dim("attention", "rows", d.rows);
  check_dim("attention", "heads", d.heads);
  check_dim("attention", "kv_heads", d.kv_heads);
  check_dim("attention", "head_dim", d.head_dim);
  NIBBLE_CHECK(d.kv_len >= d.rows && d.kv_len <= kMaxDim, kBad,
               "attention: kv_len must be at least rows = {}, found {}", d.rows, d.kv_len);
  NIBBLE_CHECK(d.heads % d.kv_heads == 0, kBad,
               "attention: heads must be a multiple of kv_heads = {}, found {}", d.kv_heads,
               d.heads);
  NIBBLE_CHECK(args.kv_head_stride >= d.kv_len * d.head_dim, kBad,
               "attention: kv_head_stride must be at least kv_len * head_dim = {}, found {}",
               d.kv_len * d.head_dim, args.kv_head_stride);
  check_view("attention", "q", args.q, d.rows, d.heads * d.head_dim, d.type);
  check_view("attention", "out", args.out, d.rows, d.heads * d.head_dim, d.type);
  check_pointer("attention", "k", args.k);
  check_pointer("attention", "v", args.v);
}

void validate(const SiluMulArgs& args) {
  const SiluMulDesc& d = args.desc;
  check_dim("silu_mul", "rows", d.rows);
  check_dim("silu_mul", "cols", d.cols);
  check_view("silu_mul", "x", args.x, d.rows, 2 * d.cols, d.type);
  check_view("silu_mul", "y", args.y, d.rows, d.cols, d.type);
}

void validate(const EmbeddingArgs& args) {
  const EmbeddingDesc& d = args.desc;
  check_dim("embedding", "rows", d.rows);
  check_pointer("embedding", "table", args.table);
  const PreparedWeight& t = *args.table;
  NIBBLE_CHECK(t.k == d.cols && t.format == d.format && t.layout == d.layout, kBad,
               "embedding: table ({}) must be {} {} with {} columns, found {} {} with {}", t.name,
               to_string(d.format), to_string(d.layout), d.cols, to_string(t.format),
               to_string(t.layout), t.k);
  check_view("embedding", "y", args.y, d.rows, d.cols, d.type);
  check_pointer("embedding", "tokens", args.tokens);
  for (int64_t i = 0; i < d.rows; ++i) {
    NIBBLE_CHECK(args.tokens[i] >= 0 && args.tokens[i] < t.n, kBad,
                 "embedding: token {} must be in [0, {}), found {}", i, t.n, args.tokens[i]);
  }
}

void validate(const SamplingArgs& args) {
  const SamplingDesc& d = args.desc;
  check_dim("sampling", "vocab", d.vocab);
  check_pointer("sampling", "logits", args.logits);
  check_pointer("sampling", "token", args.token);
  const auto check = [](const char* name, double value, bool ok, const char* expected) {
    NIBBLE_CHECK(ok, kBad, "sampling: {} must be {}, found {}", name, expected, value);
  };
  check("temperature", d.temperature, d.temperature >= 0 && std::isfinite(d.temperature),
        "finite and at least 0");
  check("top_k", static_cast<double>(d.top_k), d.top_k >= 0, "at least 0");
  check("top_p", d.top_p, d.top_p > 0 && d.top_p <= 1, "in (0, 1]");
  check("min_p", d.min_p, d.min_p >= 0 && d.min_p <= 1, "in [0, 1]");
  check("uniform", args.uniform, args.uniform >= 0 && args.uniform < 1, "in [0, 1)");
}

}  // namespace nibble
