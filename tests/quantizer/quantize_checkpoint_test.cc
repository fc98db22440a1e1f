#include <cmath>
#include <stdexcept>
#include <thread>

#include "checkpoint/checkpoint.h"
#include "formats/block_search.h"
#include "kernels/ref/quantize.h"
#include "nibble/quantize.h"
#include "tests/quantizer/tiny_model.h"

namespace nibble {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Not;
namespace fs = std::filesystem;

class QuantizeCheckpoint : public ::testing::Test {
 protected:
  QuantizeReport run(const QuantizeOptions& options = {}) {
    return quantize_checkpoint(src_, dst_, options, device_);
  }
  void expect_failure(ErrorCode code, const std::vector<std::string>& parts,
                      const QuantizeOptions& options = {}) {
    const auto before = test::names_in(dir_.path());
    test::expect_error(code, parts, [&] { run(options); });
    EXPECT_EQ(test::names_in(dir_.path()), before) << "something was left behind";
  }

  test::TempDir dir_;
  fs::path src_ = dir_.path() / "src", dst_ = dir_.path() / "dst";
  Device device_ = Device::cpu(2);
};

float amax_of(std::span<const uint8_t> bf16) {
  float amax = 0;
  for (size_t i = 0; i < bf16.size(); i += 2) {
    amax =
        std::max(amax, std::fabs(bf16_to_float(static_cast<uint16_t>(bf16[i] | bf16[i + 1] << 8))));
  }
  return amax;
}

std::vector<std::string> fused_with(const std::string& module) {
  const size_t at = module.rfind('.') + 1;
  const std::string prefix = module.substr(0, at), last = module.substr(at);
  for (const std::vector<std::string>& group :
       {std::vector<std::string>{"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"}}) {
    std::vector<std::string> names;
    for (const auto& name : group) names.push_back(prefix + name);
    if (std::find(group.begin(), group.end(), last) != group.end()) return names;
  }
  return {module};
}

// Every combination, read back, against the reference kernel on the source's weights.
TEST_F(QuantizeCheckpoint, EveryCombinationReadsBackAsTheReferenceQuantizes) {
  test::TinyModel().add_raw("model.norm.weight", "F32", "[1]", test::f32(2.5f)).write(src_);
  const Checkpoint source = Checkpoint::open(src_);
  for (const WeightFormat format : {WeightFormat::kNvfp4, WeightFormat::kMxfp4}) {
    for (const Convention convention : {Convention::kModelOpt, Convention::kCompressedTensors}) {
      for (const QuantizeMethod method :
           {QuantizeMethod::kRtn, QuantizeMethod::kMse, QuantizeMethod::kFourOverSix}) {
        if (format == WeightFormat::kMxfp4 && method == QuantizeMethod::kFourOverSix) continue;
        SCOPED_TRACE(
            fmt::format("{} {} {}", to_string(format), to_string(convention), to_string(method)));
        QuantizeOptions options{.format = format, .convention = convention, .method = method};
        options.overwrite = true;
        const QuantizeReport report = run(options);
        ASSERT_EQ(report.tensors.size(), 14u);
        const Checkpoint made = Checkpoint::open(dst_);
        double error = 0, norm = 0;
        for (const QuantizedTensor& t : report.tensors) {
          SCOPED_TRACE(t.name);
          const WeightTensor got = made.linear(t.name);
          const auto bytes = source.bytes(t.name + ".weight");
          ASSERT_EQ(got.format, format);
          ASSERT_EQ(got.n, t.n);
          ASSERT_EQ(got.k, t.k);
          float global = 1.0f;
          if (format == WeightFormat::kNvfp4) {
            float amax = 0;
            for (const std::string& name : fused_with(t.name)) {
              amax = std::max(amax, amax_of(source.bytes(name + ".weight")));
            }
            const float top = method == QuantizeMethod::kFourOverSix ? 6 * 256.0f : 6 * 448.0f;
            global = 1.0f / (top / amax);
            EXPECT_EQ(got.segments.at(0).global_decode_scale, global);
          }
          EXPECT_EQ(t.global_decode_scale, global);

          std::vector<uint8_t> codes(t.n * t.k / 2), scales(t.n * t.k / block_size(format));
          std::vector<float> decoded(t.n * t.k);
          std::vector<uint16_t> weights(t.n * t.k);
          std::memcpy(weights.data(), bytes.data(), bytes.size());
          ref::kQuantize.launch({.desc = {format, method, Mxfp4ScaleRule::kCeil, DType::kBF16,
                                          ScaleLayout::kLinear, t.n, t.k},
                                 .src = {weights.data(), DType::kBF16, t.n, t.k, t.k},
                                 .global_decode_scale = global,
                                 .codes = codes.data(),
                                 .scales = scales.data()},
                                {}, {});
          EXPECT_EQ(std::memcmp(codes.data(), got.codes, codes.size()), 0) << "codes";
          EXPECT_EQ(std::memcmp(scales.data(), got.scales, scales.size()), 0) << "scales";
          ref::kDequantize.launch({.desc = {format, DType::kF32, ScaleLayout::kLinear, t.n, t.k},
                                   .codes = codes.data(),
                                   .scales = scales.data(),
                                   .global_decode_scale = global,
                                   .dst = {decoded.data(), DType::kF32, t.n, t.k, t.k}},
                                  {}, {});
          double e = 0, w2 = 0;
          for (size_t i = 0; i < decoded.size(); ++i) {
            const double w = bf16_to_float(weights[i]);
            e += (w - decoded[i]) * (w - decoded[i]);
            w2 += w * w;
          }
          EXPECT_NEAR(t.relative_error, std::sqrt(e / w2), 1e-7);
          EXPECT_NEAR(t.snr_db, 10 * std::log10(w2 / e), 1e-5);
          EXPECT_LT(t.relative_error, 0.15);
          error += e;
          norm += w2;
        }
        EXPECT_NEAR(report.relative_error, std::sqrt(error / norm), 1e-7);
        for (const char* name : {"model.embed_tokens.weight", "model.norm.weight"}) {
          const auto a = source.bytes(name), b = made.bytes(name);
          EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end())) << name;
        }
        EXPECT_EQ(test::read_file(dst_ / "tokenizer.json"), "{}");
        EXPECT_EQ(test::names_in(dir_.path()), (std::set<std::string>{"src", "dst"}));
      }
    }
  }
}

TEST_F(QuantizeCheckpoint, ScaleRulesOfMxfp4) {
  test::TinyModel(1).write(src_);
  QuantizeOptions options{.format = WeightFormat::kMxfp4};
  options.overwrite = true;
  std::set<double> errors;
  for (const auto rule : {Mxfp4ScaleRule::kCeil, Mxfp4ScaleRule::kFloor, Mxfp4ScaleRule::kEven}) {
    options.scale_rule = rule;
    errors.insert(run(options).relative_error);
  }
  EXPECT_EQ(errors.size(), 3u);
}

TEST_F(QuantizeCheckpoint, LeavesRoutersAndIgnoredModules) {
  test::TinyModel(1)
      .add("model.layers.0.mlp.gate.weight", 8, 64)
      .add("model.layers.0.mlp.shared_expert_gate.weight", 1, 64)
      .add("lm_head.weight", 40, 64)
      .write(src_);
  QuantizeOptions options;
  options.ignore = {"*.mlp.d*_proj", "re:model\\.layers\\.\\d+\\.self_attn\\.[kv]"};
  const QuantizeReport report = run(options);
  std::vector<std::string> names;
  for (const auto& t : report.tensors) names.push_back(t.name);
  EXPECT_THAT(names,
              ElementsAre("model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj",
                          "model.layers.0.self_attn.o_proj", "model.layers.0.self_attn.q_proj"));
  EXPECT_THAT(report.unquantized,
              ElementsAre("lm_head", "model.layers.0.mlp.down_proj", "model.layers.0.mlp.gate",
                          "model.layers.0.mlp.shared_expert_gate",
                          "model.layers.0.self_attn.k_proj", "model.layers.0.self_attn.v_proj"));
  const Checkpoint made = Checkpoint::open(dst_);
  EXPECT_EQ(made.linear("model.layers.0.mlp.gate").format, WeightFormat::kBF16);
  EXPECT_EQ(made.linear("model.layers.0.self_attn.k_proj").format, WeightFormat::kBF16);
  EXPECT_EQ(made.linear("model.layers.0.self_attn.q_proj").format, WeightFormat::kNvfp4);
}

TEST_F(QuantizeCheckpoint, ExpertsShareScalesByExpert) {
  test::TinyModel(1)
      .add("model.layers.0.mlp.experts.0.gate_proj.weight", 32, 64, 0.1f)
      .add("model.layers.0.mlp.experts.0.up_proj.weight", 32, 64, 0.2f)
      .add("model.layers.0.mlp.experts.1.gate_proj.weight", 32, 64, 0.3f)
      .add("model.layers.0.mlp.experts.1.up_proj.weight", 32, 64, 0.4f)
      .write(src_);
  std::map<std::string, float> scales;
  for (const auto& t : run().tensors) scales[t.name] = t.global_decode_scale;
  const std::string p = "model.layers.0.mlp.experts.";
  EXPECT_EQ(scales.at(p + "0.gate_proj"), scales.at(p + "0.up_proj"));
  EXPECT_EQ(scales.at(p + "1.gate_proj"), scales.at(p + "1.up_proj"));
  EXPECT_NE(scales.at(p + "0.up_proj"), scales.at(p + "1.up_proj"));
}

TEST_F(QuantizeCheckpoint, ZeroWeightsAndOddOffsets) {
  // The one byte before it leaves every following tensor at an odd address.
  test::SafetensorsText text;
  text.add("a", "U8", "[1]", "x");
  text.add("model.layers.0.mlp.up_proj.weight", "BF16", "[16,64]", test::filled(2048, 0));
  text.add("model.layers.0.mlp.down_proj.weight", "F32", "[1,32]", test::filled(128, 0x3D));
  test::TinyModel(1).write(src_);
  test::write_file(src_ / "model.safetensors", text.text());
  const QuantizeReport report = run();
  EXPECT_EQ(report.tensors.at(1).relative_error, 0.0);
  EXPECT_TRUE(std::isinf(report.tensors.at(1).snr_db));
  EXPECT_EQ(report.tensors.at(1).global_decode_scale, 1.0f);
  EXPECT_LT(report.tensors.at(0).relative_error, 1e-6);
  EXPECT_EQ(Checkpoint::open(dst_).linear("model.layers.0.mlp.up_proj").codes[0], 0);
}

TEST_F(QuantizeCheckpoint, SplitsIntoShards) {
  test::TinyModel().write(src_);
  QuantizeOptions options;
  options.max_shard_bytes = 10'000;
  run(options);
  EXPECT_THAT(test::names_in(dst_), Contains("model.safetensors.index.json"));
  EXPECT_THAT(test::names_in(dst_), Not(Contains("model.safetensors")));
  EXPECT_EQ(Checkpoint::open(dst_).linear("model.layers.1.mlp.up_proj").n, 96);
}

TEST_F(QuantizeCheckpoint, RefusesWhatItCanNotQuantize) {
  test::TinyModel(1).add("model.layers.0.mlp.odd_proj.weight", 4, 40).write(src_);
  expect_failure(ErrorCode::kUnsupported,
                 {"model.layers.0.mlp.odd_proj", "k = 40", "multiple of 16"});
  QuantizeOptions options;
  options.ignore = {"*.odd_proj"};
  EXPECT_EQ(run(options).tensors.size(), 7u);
  options.ignore = {"*.odd_proj", "*.none"};
  fs::remove_all(dst_);
  expect_failure(ErrorCode::kInvalidArgument, {"*.none", "matches no module"}, options);
  options.ignore = {"re:("};
  expect_failure(ErrorCode::kInvalidArgument, {"ignore"}, options);
  options = {.format = WeightFormat::kMxfp4, .method = QuantizeMethod::kFourOverSix};
  expect_failure(ErrorCode::kInvalidArgument, {"four-over-six"}, options);
  options = {.format = WeightFormat::kF8};
  expect_failure(ErrorCode::kInvalidArgument, {"fp8"}, options);

  fs::remove_all(src_);
  test::TinyModel(1)
      .add_raw("model.layers.0.mlp.experts.up_proj", "BF16", "[2,16,32]", test::filled(2048, 0))
      .write(src_);
  expect_failure(ErrorCode::kUnsupported, {"model.layers.0.mlp.experts.up_proj", "3-D"});
  test::TinyModel(0).write(src_);
  expect_failure(ErrorCode::kUnsupported, {"no linear layer"});
}

TEST_F(QuantizeCheckpoint, RefusesNanInfAndWhatIsQuantizedAlready) {
  for (const char* value : {"\x80\x7F", "\xC0\xFF"}) {  // Inf, -NaN
    std::string bytes = test::filled(16 * 64 * 2, 0x3C);
    bytes.replace(700, 2, value, 2);
    test::TinyModel(1)
        .add_raw("model.layers.0.mlp.z_proj.weight", "BF16", "[16,64]", bytes)
        .write(src_);
    for (const WeightFormat format : {WeightFormat::kNvfp4, WeightFormat::kMxfp4}) {
      expect_failure(ErrorCode::kCheckpoint, {"model.layers.0.mlp.z_proj.weight", "NaN or Inf"},
                     {.format = format});
    }
  }
  test::TinyModel(1).write(src_);
  run();
  const fs::path made = dir_.path() / "made";
  fs::rename(dst_, made);
  src_ = made;
  expect_failure(ErrorCode::kUnsupported, {"model.layers.0.mlp.down_proj", "quantized already"});
}

TEST_F(QuantizeCheckpoint, GuardsTheDestination) {
  test::TinyModel(1).write(src_);
  QuantizeOptions overwrite;
  overwrite.overwrite = true;
  fs::create_directory(dst_);
  run();  // an empty folder is no obstacle
  expect_failure(ErrorCode::kInvalidArgument, {"dst", "not empty"});
  test::write_file(dst_ / "stale", "");
  run(overwrite);
  EXPECT_THAT(test::names_in(dst_), Not(Contains("stale")));
  EXPECT_EQ(test::names_in(dir_.path()), (std::set<std::string>{"src", "dst"}));

  fs::remove(dst_ / "config.json");
  expect_failure(ErrorCode::kInvalidArgument, {"not a model folder"}, overwrite);
  dst_ = src_;
  expect_failure(ErrorCode::kInvalidArgument, {"holds the source"}, overwrite);
  dst_ = dir_.path() / "src" / "..";
  expect_failure(ErrorCode::kInvalidArgument, {"holds the source"}, overwrite);
  dst_ = dir_.path() / "none" / "dst";
  expect_failure(ErrorCode::kIo, {"none"});
  dst_ = src_ / "config.json";
  expect_failure(ErrorCode::kInvalidArgument, {"not a folder"}, overwrite);
}

TEST_F(QuantizeCheckpoint, ReportsProgressAndStopsWhenItThrows) {
  test::TinyModel().write(src_);
  const auto caller = std::this_thread::get_id();
  int64_t last = 0, total = 0;
  int calls = 0;
  const QuantizeReport report =
      quantize_checkpoint(src_, dst_, {}, device_, [&](const QuantizeProgress& p) {
        EXPECT_EQ(std::this_thread::get_id(), caller);
        EXPECT_GE(p.done_bytes, last);
        EXPECT_FALSE(p.tensor.empty());
        last = p.done_bytes;
        total = p.total_bytes;
        ++calls;
      });
  EXPECT_GE(calls, 14);
  EXPECT_EQ(last, total);
  EXPECT_EQ(total, report.bytes_in);
  fs::remove_all(dst_);
  EXPECT_THROW(quantize_checkpoint(src_, dst_, {}, device_,
                                   [](const QuantizeProgress& p) {
                                     if (p.done_bytes > 30'000) throw std::runtime_error("stop");
                                   }),
               std::runtime_error);
  EXPECT_EQ(test::names_in(dir_.path()), std::set<std::string>{"src"});
}

}  // namespace
}  // namespace nibble
