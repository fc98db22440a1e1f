// One line of text for every descriptor: what traces, reports and bench rows print.
#include "ops/gemm.h"
#include "ops/model_ops.h"
#include "ops/quantize.h"

namespace nibble {
namespace {

// "F32" -> "f32": rows of descriptors read better in lower case.
std::string lower(DType t) {
  std::string text(to_string(t));
  for (char& c : text) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return text;
}

}  // namespace

std::string to_string(const KernelConfig& c) {
  std::string text;
  const auto add = [&](const char* name, int value) {
    if (value != 0) text += fmt::format("{}{}={}", text.empty() ? "" : " ", name, value);
  };
  add("tile_m", c.tile_m);
  add("tile_n", c.tile_n);
  add("tile_k", c.tile_k);
  add("stages", c.stages);
  add("split_k", c.split_k);
  add("cluster", c.cluster);
  add("rest_m", c.rest_m);
  add("rest_n", c.rest_n);
  add("algorithm", c.algorithm);
  return text.empty() ? "default" : text;
}

std::string_view to_string(WeightLayout layout) {
  switch (layout) {
    case WeightLayout::kCanonical:
      return "canonical";
    case WeightLayout::kCpuTiles:
      return "cpu_tiles";
    case WeightLayout::kSm90:
      return "sm90";
    case WeightLayout::kSm120:
      return "sm120";
    case WeightLayout::kFp4Rows:
      return "fp4_rows";
  }
  return "unknown";
}

std::string to_string(const GemmDesc& d) {
  return fmt::format(
      "m={} n={} k={} {} {} {} {}->{}{}{}{}{}{}{}", d.m, d.n, d.k, to_string(d.weight),
      to_string(d.layout), to_string(d.activation), lower(d.a_type), lower(d.d_type),
      d.num_segments > 1 ? fmt::format(" segments={}", d.num_segments) : "",
      d.has_bias ? " +bias" : "", d.silu_mul ? " silu_mul" : "", d.has_c ? " +c" : "",
      d.a_type == DType::kU8 ? fmt::format(" a={}", to_string(d.a_layout)) : "",
      d.d_type == DType::kU8 ? fmt::format(" d={}", to_string(d.d_layout)) : "");
}

std::string to_string(const QuantizeDesc& d) {
  constexpr std::string_view kGlobals[] = {"", " global scale from memory",
                                           " global scale computed"};
  constexpr std::string_view kInputs[] = {"", "silu_mul ", "rms_norm "};
  return fmt::format(
      "m={} k={} {}{}{}->{} {}{} {}{}{}", d.m, d.k, kInputs[static_cast<int>(d.input)],
      d.has_residual ? "+residual " : "", lower(d.src_type), to_string(d.format),
      to_string(d.method),
      d.format == WeightFormat::kMxfp4 ? fmt::format(" {}", to_string(d.scale_rule)) : "",
      to_string(d.layout), kGlobals[static_cast<int>(d.global)],
      d.experts == 0 ? "" : fmt::format(" {}experts={}", d.ragged ? "ragged " : "", d.experts));
}

std::string to_string(const DequantizeDesc& d) {
  return fmt::format("m={} k={} {}->{} {}", d.m, d.k, to_string(d.format), lower(d.dst_type),
                     to_string(d.layout));
}

std::string to_string(const RmsNormDesc& d) {
  return fmt::format("rows={} cols={} {}", d.rows, d.cols, lower(d.type));
}

std::string to_string(const RopeDesc& d) {
  return fmt::format("rows={} heads={} head_dim={} {}", d.rows, d.heads, d.head_dim, lower(d.type));
}

std::string to_string(const AttentionDesc& d) {
  return fmt::format("rows={} kv_len={} heads={} kv_heads={} head_dim={} {} kv={}", d.rows,
                     d.kv_len, d.heads, d.kv_heads, d.head_dim, lower(d.type), lower(d.kv_type));
}

std::string to_string(const SiluMulDesc& d) {
  return fmt::format("rows={} cols={} {}", d.rows, d.cols, lower(d.type));
}

std::string to_string(const EmbeddingDesc& d) {
  return fmt::format("rows={} cols={} {} {} {}", d.rows, d.cols, to_string(d.format),
                     to_string(d.layout), lower(d.type));
}

std::string to_string(const SamplingDesc& d) {
  return fmt::format("vocab={} temperature={} top_k={} top_p={} min_p={}", d.vocab, d.temperature,
                     d.top_k, d.top_p, d.min_p);
}

}  // namespace nibble
