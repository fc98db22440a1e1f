#include <cmath>

#include "checkpoint/checkpoint.h"
#include "tests/checkpoint/model_folder.h"

namespace nibble {
namespace {

using test::bytes_of;
using test::expect_error;
using test::f32;
using test::filled;
using test::SafetensorsText;
using test::TempDir;
using test::write_file;

const std::string kModelOpt =
    R"({"model_type":"llama","quantization_config":)"
    R"({"quant_method":"modelopt","quant_algo":"NVFP4","ignore":["gate"]}})";
const std::string kWeightOnly =
    R"({"quantization_config":{"quant_method":"modelopt","quant_algo":"W4A16_NVFP4"}})";
const std::string kModelOptMx =
    R"({"quantization_config":{"quant_method":"modelopt","quant_algo":"MXFP4"}})";
const std::string kFp8 =
    R"({"quantization_config":{"quant_method":"modelopt","quant_algo":"FP8"}})";

std::string compressed(const std::string& format, const std::string& weights,
                       const std::string& input) {
  return R"({"quantization_config":{"quant_method":"compressed-tensors","format":")" + format +
         R"(","ignore":["lm_head"],"config_groups":{"group_0":{"weights":)" + weights +
         R"(,"input_activations":)" + input + R"(,"targets":["Linear"]}}}})";
}
const std::string kCompressed =
    compressed("nvfp4-pack-quantized",
               R"({"num_bits":4,"type":"float","strategy":"tensor_group","group_size":16})",
               R"({"num_bits":4,"dynamic":"local"})");
const std::string kCompressedMx =
    compressed("mxfp4-pack-quantized",
               R"({"num_bits":4,"type":"float","strategy":"group","group_size":32})", "null");

// Each tensor of a quantized weight may be replaced, or left out by an empty dtype.
struct Tensor {
  std::string dtype, shape, bytes;
};
struct Parts {
  std::string prefix = "w";
  Tensor weight{"U8", "[2,16]", filled(16, 0x21) + filled(16, 0x43)};
  Tensor scale{"F8_E4M3", "[2,2]", "\x38\x39\x3a\x3b"};
  Tensor global{"F32", "[]", f32(0.25f)};
  Tensor input{"F32", "[]", f32(0.5f)};
};

class Linear : public testing::Test {
 protected:
  void add(const std::string& name, const Tensor& t) {
    if (!t.dtype.empty()) text_.add(name, t.dtype, t.shape, t.bytes);
  }
  void modelopt(const Parts& p) {
    add(p.prefix + ".weight", p.weight);
    add(p.prefix + ".weight_scale", p.scale);
    add(p.prefix + ".weight_scale_2", p.global);
    add(p.prefix + ".input_scale", p.input);
  }
  void compressed_tensors(const Parts& p) {
    add(p.prefix + ".weight_packed", p.weight);
    add(p.prefix + ".weight_scale", p.scale);
    add(p.prefix + ".weight_global_scale", p.global);
    add(p.prefix + ".input_global_scale", p.input);
  }
  Checkpoint open(const std::string& config) {
    write_file(dir_.path() / "config.json", config);
    write_file(dir_.path() / "model.safetensors", text_.text());
    text_ = {};
    return Checkpoint::open(dir_.path());
  }
  void expect_bad(const std::string& config, const std::vector<std::string>& parts,
                  ErrorCode code = ErrorCode::kCheckpoint) {
    const Checkpoint checkpoint = open(config);
    expect_error(code, parts, [&] { checkpoint.linear("w"); });
  }
  TempDir dir_;
  SafetensorsText text_;
};

TEST_F(Linear, ReadsModelOptNvfp4) {
  modelopt({});
  WeightTensor w;
  {
    const Checkpoint checkpoint = open(kModelOpt);
    EXPECT_TRUE(checkpoint.contains("w"));
    EXPECT_FALSE(checkpoint.contains("v"));
    EXPECT_TRUE(checkpoint.has_tensor("w.input_scale"));
    w = checkpoint.linear("w");
  }  // the weight keeps the mapping
  EXPECT_EQ(w.name, "w");
  EXPECT_EQ(w.format, WeightFormat::kNvfp4);
  EXPECT_EQ(w.n, 2);
  EXPECT_EQ(w.k, 32);
  EXPECT_EQ(w.codes[0], 0x21);
  EXPECT_EQ(w.codes[31], 0x43);
  EXPECT_EQ(w.scales[3], 0x3b);
  ASSERT_EQ(w.segments.size(), 1u);
  EXPECT_EQ(w.segments[0].row_begin, 0);
  EXPECT_EQ(w.segments[0].global_decode_scale, 0.25f);
  EXPECT_EQ(w.input_decode_scale, 0.5f);
  EXPECT_EQ(w.row_scales, nullptr);
}

TEST_F(Linear, ReadsCompressedTensorsNvfp4WithDivisors) {
  compressed_tensors({.global = {"F32", "[1]", f32(4.0f)}, .input = {"F32", "[1]", f32(8.0f)}});
  const WeightTensor w = open(kCompressed).linear("w");
  EXPECT_EQ(w.format, WeightFormat::kNvfp4);
  EXPECT_EQ(w.k, 32);
  EXPECT_EQ(w.codes[0], 0x21);
  EXPECT_EQ(w.segments.at(0).global_decode_scale, 0.25f);
  EXPECT_EQ(w.input_decode_scale, 0.125f);
}

TEST_F(Linear, TakesEveryShapeOfAScalar) {
  for (const char* shape : {"[]", "[1]", "[1,1]"}) {
    modelopt({.global = {"F32", shape, f32(0.25f)}, .input = {"F32", shape, f32(2.0f)}});
    const WeightTensor w = open(kModelOpt).linear("w");
    EXPECT_EQ(w.segments.at(0).global_decode_scale, 0.25f) << shape;
    EXPECT_EQ(w.input_decode_scale, 2.0f) << shape;
  }
  modelopt({.global = {"F32", "[2]", f32(1) + f32(2)}});
  expect_bad(kModelOpt, {"w.weight_scale_2", "[2]", "expected one number"});
}

TEST_F(Linear, WeightOnlySchemesNeedNoInputScaleAndDropIt) {
  modelopt({.input = {}});
  EXPECT_EQ(open(kWeightOnly).linear("w").input_decode_scale, 0.0f);
  modelopt({});
  EXPECT_EQ(open(kWeightOnly).linear("w").input_decode_scale, 0.0f);
}

TEST_F(Linear, ReadsMxfp4InBothConventions) {
  const Parts mx{.scale = {"U8", "[2,1]", "\x7f\x80"}, .global = {}, .input = {}};
  compressed_tensors(mx);
  const WeightTensor a = open(kCompressedMx).linear("w");
  modelopt(mx);
  const WeightTensor b = open(kModelOptMx).linear("w");
  for (const WeightTensor& w : {a, b}) {
    EXPECT_EQ(w.format, WeightFormat::kMxfp4);
    EXPECT_EQ(w.k, 32);
    EXPECT_EQ(w.scales[1], 0x80);
    EXPECT_TRUE(w.segments.empty());
  }
  modelopt({.scale = {"F8_E8M0", "[2,1]", "\x7f\x81"}, .global = {}, .input = {}});
  EXPECT_EQ(open(kModelOptMx).linear("w").scales[1], 0x81);
}

TEST_F(Linear, ReadsFp8PerTensorAndPerRow) {
  const Tensor codes{"F8_E4M3", "[2,3]", "abcdef"};
  modelopt({.weight = codes, .scale = {"F32", "[]", f32(0.5f)}, .global = {}});
  const WeightTensor tensor = open(kFp8).linear("w");
  EXPECT_EQ(tensor.format, WeightFormat::kF8);
  EXPECT_EQ(tensor.k, 3);
  EXPECT_EQ(tensor.row_scales[0], 0.5f);
  EXPECT_EQ(tensor.row_scales[1], 0.5f);
  EXPECT_EQ(tensor.codes[5], 'f');
  EXPECT_EQ(tensor.input_decode_scale, 0.0f);
  modelopt({.weight = codes, .scale = {"BF16", "[2,1]", bytes_of<uint16_t>({0x3f80, 0x4000})}});
  const WeightTensor rows = open(kFp8).linear("w");
  EXPECT_EQ(rows.row_scales[0], 1.0f);
  EXPECT_EQ(rows.row_scales[1], 2.0f);
  modelopt({.weight = codes, .scale = {"F32", "[3]", f32(1) + f32(2) + f32(3)}});
  expect_bad(kFp8, {"w.weight_scale", "[3]", "2 rows"});
  modelopt({.weight = codes, .scale = {"F32", "[2]", f32(1) + f32(NAN)}});
  expect_bad(kFp8, {"w.weight_scale", "nan", "at 1"});
}

TEST_F(Linear, ReadsPlainTypesAndVectors) {
  text_.add("odd", "U8", "[1]", "x");  // what follows is unaligned
  text_.add("a.weight", "BF16", "[1,2]", bytes_of<uint16_t>({0x3f80, 0xc000}));
  text_.add("b.weight", "F16", "[1,2]", bytes_of<uint16_t>({0x3c00, 0xc000}));
  text_.add("c.weight", "F32", "[1,2]", f32(1) + f32(-2));
  text_.add("i.weight", "I32", "[1,1]", f32(1));
  text_.add("norm.weight", "BF16", "[2]", bytes_of<uint16_t>({0x3f80, 0xc000}));
  const Checkpoint checkpoint = open("{}");
  const std::pair<const char*, WeightFormat> plain[] = {
      {"a", WeightFormat::kBF16}, {"b", WeightFormat::kF16}, {"c", WeightFormat::kF32}};
  for (const auto& [name, format] : plain) {
    EXPECT_EQ(checkpoint.linear(name).format, format);
    EXPECT_EQ(checkpoint.linear(name).k, 2);
    EXPECT_EQ(checkpoint.vector(std::string(name) + ".weight"), (std::vector<float>{1, -2}));
  }
  EXPECT_EQ(checkpoint.vector("norm.weight"), (std::vector<float>{1, -2}));
  EXPECT_EQ(checkpoint.bytes("odd")[0], 'x');
  expect_error(ErrorCode::kCheckpoint, {"norm.weight", "[2]", "expected a matrix"},
               [&] { checkpoint.linear("norm"); });
  expect_error(ErrorCode::kCheckpoint, {"odd", "U8", "expected F32, BF16 or F16"},
               [&] { checkpoint.vector("odd"); });
  expect_error(ErrorCode::kCheckpoint, {"i.weight", "I32", "not quantized"},
               [&] { checkpoint.linear("i"); });
  expect_error(ErrorCode::kCheckpoint, {dir_.path().string(), "none.weight is missing"},
               [&] { checkpoint.linear("none"); });
  expect_error(ErrorCode::kCheckpoint, {"bias is missing"}, [&] { checkpoint.vector("bias"); });
}

TEST_F(Linear, LmHeadMayBeQuantizedPlainOrAbsent) {
  const Tensor plain{"BF16", "[2,2]", filled(8, 0)};
  add("lm_head.weight", plain);
  EXPECT_EQ(open(kModelOpt).linear("lm_head").format, WeightFormat::kBF16);
  add("lm_head.weight", plain);
  EXPECT_EQ(open(kCompressed).linear("lm_head").format, WeightFormat::kBF16);
  modelopt({.prefix = "lm_head"});
  EXPECT_EQ(open(kModelOpt).linear("lm_head").format, WeightFormat::kNvfp4);
  compressed_tensors({.prefix = "lm_head"});
  const Checkpoint contradicting = open(kCompressed);  // it ignores lm_head
  expect_error(ErrorCode::kCheckpoint, {"lm_head.weight_packed", "not quantized"},
               [&] { contradicting.linear("lm_head"); });
  add("model.embed_tokens.weight", plain);
  const Checkpoint tied = open(kModelOpt);
  EXPECT_FALSE(tied.contains("lm_head"));
  EXPECT_EQ(tied.linear("model.embed_tokens").format, WeightFormat::kBF16);
}

TEST_F(Linear, ReadsExpertNames) {
  const std::string names[] = {"model.layers.0.mlp.experts.3.gate_proj",
                               "model.layers.0.block_sparse_moe.experts.1.w2"};
  for (const std::string& name : names) modelopt({.prefix = name});
  add("model.layers.0.mlp.gate.weight", {"BF16", "[2,2]", filled(8, 0)});
  // Cache scales next to them are no part of a weight.
  add("model.layers.0.self_attn.k_proj.k_scale", {"F32", "[]", f32(1)});
  const Checkpoint checkpoint = open(kModelOpt);
  for (const std::string& name : names) {
    EXPECT_EQ(checkpoint.linear(name).format, WeightFormat::kNvfp4);
  }
  EXPECT_EQ(checkpoint.linear("model.layers.0.mlp.gate").format, WeightFormat::kBF16);
}

TEST_F(Linear, ReadsExpertsStackedInOneTensor) {
  modelopt({.weight = {"U8", "[2,1,8]", filled(8, 1) + filled(8, 2)},
            .scale = {"F8_E4M3", "[2,1,1]", "\x38\x39"},
            .global = {"F32", "[2]", f32(0.5f) + f32(0.25f)}});
  const Checkpoint checkpoint = open(kModelOpt);
  const WeightTensor w = checkpoint.expert("w", 1);
  EXPECT_EQ(w.n, 1);
  EXPECT_EQ(w.k, 16);
  EXPECT_EQ(w.codes[0], 2);
  EXPECT_EQ(w.scales[0], 0x39);
  EXPECT_EQ(w.segments.at(0).global_decode_scale, 0.25f);
  EXPECT_EQ(w.input_decode_scale, 0.5f);  // one for all
  EXPECT_EQ(checkpoint.expert("w", 0).codes[0], 1);
  expect_error(ErrorCode::kInvalidArgument, {"expert 2", "[2, 1, 8]"},
               [&] { checkpoint.expert("w", 2); });
  expect_error(ErrorCode::kInvalidArgument, {"stack of experts"}, [&] { checkpoint.linear("w"); });
}

TEST_F(Linear, RefusesMissingTensors) {
  modelopt({.scale = {}});
  expect_bad(kModelOpt, {"model.safetensors", "w.weight_scale is missing", "NVFP4"});
  modelopt({.global = {}});
  expect_bad(kModelOpt, {"w.weight_scale_2 is missing"});
  modelopt({.input = {}});
  expect_bad(kModelOpt, {"w.input_scale is missing"});
  compressed_tensors({.global = {}});
  expect_bad(kCompressed, {"w.weight_global_scale is missing", "nvfp4-pack-quantized"});
  compressed_tensors({.input = {}});
  expect_bad(kCompressed, {"w.input_global_scale is missing"});
  modelopt({});
  add("w.weight_packed", {"U8", "[1,1]", "x"});
  expect_bad(kModelOpt, {"both w.weight and w.weight_packed"});
}

TEST_F(Linear, RefusesWrongShapesAndTypes) {
  modelopt({.scale = {"F8_E4M3", "[2,1]", "\x38\x38"}});
  expect_bad(kModelOpt, {"w.weight_scale", "[2, 1]", "expected [2, 2]"});
  modelopt({.scale = {"F8_E4M3", "[4]", "\x38\x38\x38\x38"}});
  expect_bad(kModelOpt, {"w.weight_scale", "[4]", "expected [2, 2]"});
  modelopt({.scale = {"U8", "[2,2]", "\x38\x38\x38\x38"}});
  expect_bad(kModelOpt, {"w.weight_scale", "U8", "expected F8_E4M3"});
  modelopt({.weight = {"U8", "[2,12]", filled(24, 0)}});
  expect_bad(kModelOpt, {"w.weight", "k = 24", "multiple of 16"});
  modelopt({.weight = {"U8", "[2,8]", filled(16, 0)}, .scale = {"U8", "[2,1]", "aa"}});
  expect_bad(kModelOptMx, {"w.weight", "k = 16", "multiple of 32"});
  modelopt({.weight = {"U8", "[32]", filled(32, 0)}});
  expect_bad(kModelOpt, {"w.weight", "[32]", "expected a matrix"});
  modelopt({.weight = {"I8", "[2,16]", filled(32, 0)}});
  expect_bad(kModelOpt, {"w.weight", "I8", "expected U8"});
  modelopt({.weight = {"U8", "[0,16]", ""}, .scale = {"F8_E4M3", "[0,2]", ""}});
  expect_bad(kModelOpt, {"w.weight", "[0, 16]", "no elements"});
  modelopt({.global = {"I32", "[]", f32(1)}});
  expect_bad(kModelOpt, {"w.weight_scale_2", "I32", "expected F32"});
}

TEST_F(Linear, RefusesNanAndNegativeScales) {
  modelopt({.scale = {"F8_E4M3", "[2,2]", "\x38\x38\x38\x7f"}});
  expect_bad(kModelOpt, {"w.weight_scale", "NaN", "0x7F", "row 1, block 1"});
  modelopt({.scale = {"F8_E4M3", "[2,2]", "\x38\xff\x38\x38"}});
  expect_bad(kModelOpt, {"NaN", "0xFF", "row 0, block 1"});
  modelopt({.scale = {"F8_E4M3", "[2,2]", "\x38\x38\xb8\x38"}});
  expect_bad(kModelOpt, {"negative", "0xB8", "row 1, block 0"});
  modelopt({.scale = {"F8_E4M3", "[2,2]", std::string("\0\x7e\x01\x38", 4)}});
  EXPECT_EQ(open(kModelOpt).linear("w").scales[1], 0x7e);  // 0 and 448 are scales
  modelopt({.scale = {"U8", "[2,1]", "\xfe\xff"}});
  expect_bad(kModelOptMx, {"w.weight_scale", "NaN", "0xFF", "row 1, block 0"});
  for (const float bad : {NAN, -1.0f, 0.0f, INFINITY}) {
    modelopt({.global = {"F32", "[]", f32(bad)}});
    expect_bad(kModelOpt, {"w.weight_scale_2", "expected a positive number"});
    modelopt({.input = {"F32", "[]", f32(bad)}});
    expect_bad(kModelOpt, {"w.input_scale", "expected a positive number"});
    compressed_tensors({.global = {"F32", "[1]", f32(bad)}});
    expect_bad(kCompressed, {"w.weight_global_scale", "expected a positive number"});
  }
}

TEST_F(Linear, RefusesTensorsThatContradictTheConfig) {
  const Tensor plain{"BF16", "[2,2]", filled(8, 0)};
  add("w.weight", plain);
  expect_bad(kModelOpt, {"w.weight is BF16", "the config says NVFP4"});
  add("w.weight", plain);
  expect_bad(kCompressed, {"w.weight is BF16", "nvfp4-pack-quantized"});
  modelopt({});
  expect_bad("{}", {"w.weight is U8", "not quantized"});
  modelopt({.prefix = "gate"});
  const Checkpoint excluded = open(kModelOpt);
  expect_error(ErrorCode::kCheckpoint, {"gate.weight is U8", "not quantized"},
               [&] { excluded.linear("gate"); });
  modelopt({});
  expect_bad(kFp8, {"w.weight", "U8", "expected F8_E4M3 for FP8"});
}

TEST_F(Linear, RefusesStepsItCannotExpress) {
  const std::string awq =
      R"({"quantization_config":{"quant_method":"modelopt","quant_algo":"NVFP4_AWQ"}})";
  modelopt({});
  EXPECT_EQ(open(awq).linear("w").format, WeightFormat::kNvfp4);  // folded into a norm: none left
  modelopt({});
  add("w.pre_quant_scale", {"BF16", "[32]", filled(64, 0)});
  expect_bad(awq, {"w.pre_quant_scale", "NVFP4_AWQ"}, ErrorCode::kUnsupported);
  modelopt({});
  add("w.svdquant_lora_a", {"BF16", "[32]", filled(64, 0)});
  expect_bad(awq, {"w.svdquant_lora_a"}, ErrorCode::kUnsupported);
}

TEST_F(Linear, ListsTensorsAndModules) {
  modelopt({});
  add("w.bias", {"F32", "[2]", f32(0) + f32(0)});
  add("gate.weight", {"BF16", "[2,3]", filled(12, 0)});
  add("norm.weight", {"BF16", "[2]", filled(4, 0)});
  const Checkpoint checkpoint = open(kModelOpt);
  const auto tensors = checkpoint.tensors();
  ASSERT_EQ(tensors.size(), 7u);
  EXPECT_EQ(tensors[0].name, "gate.weight");
  EXPECT_EQ(tensors[0].dtype, DType::kBF16);
  EXPECT_EQ(tensors[0].shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(tensors[0].bytes, 12);
  EXPECT_EQ(tensors[0].file, "model.safetensors");
  const auto modules = checkpoint.modules();
  ASSERT_EQ(modules.size(), 2u);
  EXPECT_EQ(modules[0].name, "gate");
  EXPECT_EQ(modules[0].scheme, "");
  EXPECT_EQ(modules[1].name, "w");
  EXPECT_EQ(modules[1].format, WeightFormat::kNvfp4);
  EXPECT_EQ(modules[1].scheme, "NVFP4");
  EXPECT_EQ(modules[1].n, 2);
  EXPECT_EQ(modules[1].k, 32);
  EXPECT_EQ(modules[1].experts, 0);
  EXPECT_EQ(modules[1].bytes, 32 + 4 + 4 + 4 + 8);
}

TEST_F(Linear, ReleasedBytesCanStillBeRead) {
  modelopt({.weight = {"U8", "[512,16]", filled(8192, 7)},
            .scale = {"F8_E4M3", "[512,2]", filled(1024, 0x38)}});
  const Checkpoint checkpoint = open(kModelOpt);
  const WeightTensor w = checkpoint.linear("w");
  checkpoint.release(w);
  checkpoint.release("w.weight");
  EXPECT_EQ(w.codes[8191], 7);
}

TEST_F(Linear, OpenNamesWhatIsMissing) {
  expect_error(ErrorCode::kIo, {"/nonexistent", "model folder"},
               [] { Checkpoint::open("/nonexistent"); });
  expect_error(ErrorCode::kIo, {"config.json", "can't open"},
               [&] { Checkpoint::open(dir_.path()); });
  write_file(dir_.path() / "config.json", "{}");
  expect_error(ErrorCode::kIo, {"no model.safetensors"}, [&] { Checkpoint::open(dir_.path()); });
  write_file(dir_.path() / "hf_quant_config.json", "");
  expect_error(ErrorCode::kCheckpoint, {"hf_quant_config.json", "empty"},
               [&] { Checkpoint::open(dir_.path()); });
}

}  // namespace
}  // namespace nibble
