#include "checkpoint/config.h"

#include "tests/checkpoint/model_folder.h"

namespace nibble {
namespace {

using test::expect_error;
using Method = QuantConfig::Method;

QuantConfig parse(const std::string& config, const std::string& hf = "") {
  return QuantConfig::parse(config, hf, "dir");
}
QuantConfig quantized(const std::string& members) {
  return parse("{\"quantization_config\":{" + members + "}}");
}
QuantConfig modelopt(const std::string& members) {
  return quantized("\"quant_method\":\"modelopt\"," + members);
}
QuantConfig compressed(const std::string& members) {
  return quantized("\"quant_method\":\"compressed-tensors\"," + members);
}
void expect_bad(ErrorCode code, const std::vector<std::string>& parts,
                const std::function<void()>& fn) {
  expect_error(code, parts, fn);
}

const std::string kQ = "model.layers.0.self_attn.q_proj";
const std::string kUp = "model.layers.0.mlp.up_proj";

const std::string kNvfp4Weights =
    R"("weights":{"num_bits":4,"type":"float","strategy":"tensor_group","group_size":16})";
const std::string kMxfp4Weights =
    R"("weights":{"num_bits":4,"type":"float","strategy":"group","group_size":32})";
const std::string kFp8Weights =
    R"("weights":{"num_bits":8,"type":"float","strategy":"channel","group_size":null})";
const std::string kFp4Inputs = R"("input_activations":{"num_bits":4,"dynamic":"local"})";

TEST(Config, PlainModelsHaveNoScheme) {
  for (const char* text : {"{}", R"({"quantization_config":null})"}) {
    const QuantConfig config = parse(text);
    EXPECT_EQ(config.method, Method::kNone);
    EXPECT_EQ(config.find(kQ), nullptr);
  }
}

TEST(ModelOptConfig, ReadsEitherFileAndEitherKey) {
  const std::string hf = R"({"producer":{"name":"modelopt"},"quantization":{)"
                         R"("quant_algo":"NVFP4","kv_cache_quant_algo":"FP8","group_size":16,)"
                         R"("exclude_modules":["lm_head"]}})";
  const std::string inner =
      R"({"quantization_config":{"quant_method":"modelopt",)"
      R"("quant_algo":"NVFP4","ignore":["lm_head"],"kv_cache_scheme":)"
      R"({"dynamic":false},"config_groups":{"group_0":{"targets":["Linear"]}}}})";
  for (const QuantConfig& config :
       {parse("{}", hf), parse(inner), parse(inner, hf),
        modelopt(R"("quantization":{"quant_algo":"nvfp4","exclude_modules":["lm_head"]})"),
        parse(R"({"quantization_config":{"quant_method":"modelopt"}})", hf),
        parse(R"({"quantization_config":{"quant_method":"MODELOPT","quant_algo":"nvfp4"}})", hf)}) {
    EXPECT_EQ(config.method, Method::kModelOpt);
    ASSERT_NE(config.find(kQ), nullptr);
    EXPECT_EQ(config.find(kQ)->format, WeightFormat::kNvfp4);
    EXPECT_TRUE(config.find(kQ)->static_input);
    EXPECT_EQ(config.find("lm_head"), nullptr);
    EXPECT_EQ(config.find("model.embed_tokens"), nullptr);
  }
}

TEST(ModelOptConfig, KnowsTheAlgorithms) {
  const std::tuple<const char*, WeightFormat, bool> known[] = {
      {"NVFP4", WeightFormat::kNvfp4, true},
      {"nvfp4", WeightFormat::kNvfp4, true},
      {"NVFP4_AWQ", WeightFormat::kNvfp4, true},
      {"NVFP4_SVD", WeightFormat::kNvfp4, true},
      {"W4A16_NVFP4", WeightFormat::kNvfp4, false},
      {"W4A8_NVFP4_FP8", WeightFormat::kNvfp4, false},
      {"MXFP4", WeightFormat::kMxfp4, false},
      {"w4a8_mxfp4_fp8", WeightFormat::kMxfp4, false},
      {"FP8", WeightFormat::kF8, false}};
  for (const auto& [name, format, static_input] : known) {
    const QuantConfig config = modelopt("\"quant_algo\":\"" + std::string(name) + "\"");
    ASSERT_NE(config.find(kQ), nullptr) << name;
    EXPECT_EQ(config.find(kQ)->format, format) << name;
    EXPECT_EQ(config.find(kQ)->static_input, static_input) << name;
    EXPECT_EQ(config.find(kQ)->name, name);
  }
  EXPECT_EQ(modelopt(R"("quant_algo":null,"kv_cache_quant_algo":"FP8")").method, Method::kNone);
}

TEST(ModelOptConfig, ExcludesByGlobNotByRegex) {
  const QuantConfig config = modelopt(
      R"("quant_algo":"NVFP4","ignore":["model.layers.1.*","*.mlp.gate","router*","lm.head"])");
  EXPECT_EQ(config.find("model.layers.1.mlp.up_proj"), nullptr);
  EXPECT_NE(config.find("model.layers.10.mlp.up_proj"), nullptr);
  EXPECT_EQ(config.find("model.layers.3.mlp.gate"), nullptr);
  EXPECT_NE(config.find("model.layers.3.mlp.gate_proj"), nullptr);
  EXPECT_EQ(config.find("router"), nullptr);
  EXPECT_EQ(config.find("router.weight1"), nullptr);
  EXPECT_NE(config.find("router2"), nullptr);   // `prefix*` is the module and what is under it
  EXPECT_TRUE(config.may_be_plain("router2"));  // but a plain router2 is no contradiction
  EXPECT_NE(config.find("lmxhead"), nullptr);   // a dot is a dot
}

TEST(ModelOptConfig, ExcludesByPartsOfOldExports) {
  const QuantConfig config =
      modelopt(R"("quant_algo":"NVFP4","exclude_modules":["layers.1","block_sparse_moe.gate",""])");
  EXPECT_EQ(config.find("model.layers.1.mlp.up_proj"), nullptr);
  EXPECT_NE(config.find("model.layers.11.mlp.up_proj"), nullptr);  // whole components only
  EXPECT_TRUE(config.may_be_plain("model.layers.11.mlp.up_proj"));
  EXPECT_FALSE(config.may_be_plain("model.layers.2.mlp.up_proj"));
  EXPECT_EQ(config.find("model.layers.4.block_sparse_moe.gate"), nullptr);
  EXPECT_NE(config.find("model.layers.4.block_sparse_moe.gate2"), nullptr);
  EXPECT_TRUE(config.may_be_plain("lm_head"));
  EXPECT_TRUE(config.may_be_plain("vision_tower.blocks.0.fc1"));
}

TEST(ModelOptConfig, MatchesFusedNamesByTheirParts) {
  const std::string p = "model.layers.0.self_attn.";
  const QuantConfig all = modelopt("\"quant_algo\":\"NVFP4\",\"ignore\":[\"" + p + "q_proj\",\"" +
                                   p + "k_proj\",\"" + p + "v_proj\"]");
  EXPECT_EQ(all.find(p + "qkv_proj"), nullptr);
  const QuantConfig two =
      modelopt("\"quant_algo\":\"NVFP4\",\"ignore\":[\"" + p + "q_proj\",\"" + p + "k_proj\"]");
  EXPECT_NE(two.find(p + "qkv_proj"), nullptr);
  const QuantConfig named = modelopt(R"("quant_algo":"NVFP4","ignore":["*.gate_up_proj"])");
  EXPECT_EQ(named.find("model.layers.0.mlp.gate_up_proj"), nullptr);
  EXPECT_NE(named.find("model.layers.0.mlp.gate_proj"), nullptr);
}

TEST(ModelOptConfig, MixedPrecisionListsItsLayers) {
  const QuantConfig config =
      modelopt(R"("quant_algo":"MIXED_PRECISION","quantized_layers":{)"
               R"("model.layers.0.self_attn.q_proj":{"quant_algo":"FP8"},)"
               R"("model.layers.0.mlp.gate_proj":{"quant_algo":"NVFP4","group_size":16},)"
               R"("model.layers.0.mlp.up_proj":{"quant_algo":"NVFP4","group_size":16},)"
               R"("model.layers.1.mlp.experts":{"quant_algo":"W4A16_NVFP4","group_size":16}})");
  EXPECT_EQ(config.schemes.size(), 3u);
  EXPECT_EQ(config.find(kQ)->format, WeightFormat::kF8);
  EXPECT_EQ(config.find(kUp)->format, WeightFormat::kNvfp4);
  EXPECT_EQ(config.find("model.layers.0.self_attn.k_proj"), nullptr);
  EXPECT_EQ(config.find("model.layers.1.mlp.experts.7.down_proj")->name, "W4A16_NVFP4");
  EXPECT_EQ(config.find("model.layers.1.mlp.experts2"), nullptr);
  EXPECT_EQ(config.find("model.layers.0.mlp.gate_up_proj")->format, WeightFormat::kNvfp4);
}

TEST(ModelOptConfig, RefusesWhatItDoesNotKnow) {
  expect_bad(ErrorCode::kUnsupported, {"dir/config.json", "\"INT4_AWQ\""},
             [] { modelopt(R"("quant_algo":"INT4_AWQ")"); });
  expect_bad(ErrorCode::kUnsupported, {"dir/hf_quant_config.json", "\"NVFP5\""},
             [] { parse("{}", R"({"quantization":{"quant_algo":"NVFP5"}})"); });
  expect_bad(ErrorCode::kUnsupported, {"\"MXFP8\"", "of a.b"}, [] {
    modelopt(R"("quant_algo":"MIXED_PRECISION","quantized_layers":{"a.b":{"quant_algo":"MXFP8"}})");
  });
  expect_bad(ErrorCode::kCheckpoint, {"quantized_layers"},
             [] { modelopt(R"("quant_algo":"MIXED_PRECISION")"); });
  expect_bad(ErrorCode::kCheckpoint, {"group_size", "is 32", "expected 16"},
             [] { modelopt(R"("quant_algo":"NVFP4","group_size":32)"); });
  expect_bad(ErrorCode::kCheckpoint, {"quant_algo", "FP8", "NVFP4"}, [] {
    parse(R"({"quantization_config":{"quant_method":"modelopt","quant_algo":"NVFP4"}})",
          R"({"quantization":{"quant_algo":"FP8"}})");
  });
  expect_bad(ErrorCode::kUnsupported, {"nvfp4_embed"},
             [] { modelopt(R"("quant_algo":"NVFP4","nvfp4_embed":true)"); });
  expect_bad(ErrorCode::kCheckpoint, {"\"ignore\" is string"},
             [] { modelopt(R"("quant_algo":"NVFP4","ignore":"lm_head")"); });
  expect_bad(ErrorCode::kCheckpoint, {"\"quant_algo\" is number"},
             [] { modelopt(R"("quant_algo":4)"); });
}

TEST(CompressedConfig, ReadsGroups) {
  const QuantConfig config = compressed(
      R"("format":"nvfp4-pack-quantized","ignore":["lm_head"],"config_groups":{"group_0":{)" +
      kNvfp4Weights + "," + kFp4Inputs + R"(,"targets":["Linear"]}})");
  EXPECT_EQ(config.method, Method::kCompressedTensors);
  EXPECT_EQ(config.find(kQ)->format, WeightFormat::kNvfp4);
  EXPECT_TRUE(config.find(kQ)->static_input);
  EXPECT_EQ(config.find(kQ)->name, "nvfp4-pack-quantized");
  EXPECT_EQ(config.find("lm_head"), nullptr);
  EXPECT_EQ(config.find("model.embed_tokens"), nullptr);
  EXPECT_FALSE(config.may_be_plain(kQ));
}

TEST(CompressedConfig, WeightOnlyAndMxfp4HaveNoStaticInput) {
  const QuantConfig a16 =
      compressed(R"("format":"nvfp4-pack-quantized","config_groups":{"group_0":{)" + kNvfp4Weights +
                 R"(,"input_activations":null,"targets":["Linear"]}})");
  EXPECT_EQ(a16.find(kQ)->format, WeightFormat::kNvfp4);
  EXPECT_FALSE(a16.find(kQ)->static_input);
  const QuantConfig mx =
      compressed(R"("format":"mxfp4-pack-quantized","config_groups":{"group_0":{)" + kMxfp4Weights +
                 R"(,"input_activations":null,"targets":["Linear"]}})");
  EXPECT_EQ(mx.find(kQ)->format, WeightFormat::kMxfp4);
  const QuantConfig dynamic =
      compressed(R"("format":"nvfp4-pack-quantized","config_groups":{"group_0":{)" + kNvfp4Weights +
                 R"(,"input_activations":{"num_bits":4,"dynamic":true},"targets":["Linear"]}})");
  EXPECT_FALSE(dynamic.find(kQ)->static_input);
}

// What decides between 16-bit and 4-bit activations where both could run.
TEST(QuantConfig, SaysWhetherActivationsAreMeantInFp4) {
  for (const char* name : {"NVFP4", "NVFP4_AWQ", "NVFP4_SVD"}) {
    EXPECT_TRUE(modelopt("\"quant_algo\":\"" + std::string(name) + "\"").quantizes_activations());
  }
  for (const char* name : {"W4A16_NVFP4", "W4A8_NVFP4_FP8", "MXFP4", "FP8"}) {
    EXPECT_FALSE(modelopt("\"quant_algo\":\"" + std::string(name) + "\"").quantizes_activations());
  }
  EXPECT_FALSE(parse("{}").quantizes_activations());
  const auto group = [](const std::string& weights, const std::string& input) {
    return compressed(R"("config_groups":{"group_0":{)" + weights + "," + input +
                      R"(,"targets":["Linear"]}})")
        .quantizes_activations();
  };
  const std::string dynamic = R"("input_activations":{"num_bits":4,"dynamic":true})";
  EXPECT_TRUE(group(kNvfp4Weights, kFp4Inputs));
  EXPECT_TRUE(group(kNvfp4Weights, dynamic));
  EXPECT_TRUE(group(kMxfp4Weights, dynamic));
  EXPECT_FALSE(group(kNvfp4Weights, R"("input_activations":null)"));
  EXPECT_FALSE(group(kNvfp4Weights, R"("input_activations":{"num_bits":8})"));
  const auto presets = [](const std::string& groups) {
    return compressed(R"("config_groups":{)" + groups + "}").quantizes_activations();
  };
  EXPECT_TRUE(presets(R"("NVFP4":["Linear"])"));
  EXPECT_TRUE(presets(R"("NVFP4":["re:.*mlp.*"],"FP8":["Linear"])"));  // of the 4-bit weights
  EXPECT_TRUE(presets(R"("MXFP4":["Linear"])"));
  EXPECT_FALSE(presets(R"("NVFP4A16":["Linear"])"));
  EXPECT_FALSE(presets(R"("NVFP4":["re:.*mlp.*"],"NVFP4A16":["Linear"])"));
}

TEST(CompressedConfig, MixedFormatsMatchNamesThenRegexesThenClasses) {
  const QuantConfig config =
      compressed(R"("format":"mixed-precision","ignore":["re:.*\\.mlp\\.gate$"],"config_groups":{)"
                 R"("a":{"format":"nvfp4-pack-quantized",)" +
                 kNvfp4Weights + R"(,"targets":["Linear"]},"b":{"format":"float-quantized",)" +
                 kFp8Weights + R"(,"targets":["re:.*self_attn"]},"c":{)" + kMxfp4Weights +
                 ",\"targets\":[\"" + kQ + "\"]}}");
  EXPECT_EQ(config.find(kUp)->format, WeightFormat::kNvfp4);
  EXPECT_EQ(config.find("model.layers.0.self_attn.k_proj")->format, WeightFormat::kF8);
  EXPECT_EQ(config.find(kQ)->format, WeightFormat::kMxfp4);
  EXPECT_EQ(config.find("model.layers.0.mlp.gate"), nullptr);
  EXPECT_NE(config.find("model.layers.0.mlp.gate_proj"), nullptr);
}

TEST(CompressedConfig, IgnoreBeatsTargetsAndKnowsClasses) {
  const std::string groups = R"("format":"nvfp4-pack-quantized","config_groups":{"g":{)" +
                             kNvfp4Weights + ",\"targets\":[\"" + kQ + "\",\"Linear\"]}}";
  EXPECT_EQ(compressed(groups + ",\"ignore\":[\"" + kQ + "\"]").find(kQ), nullptr);
  EXPECT_EQ(compressed(groups + R"(,"ignore":["Linear"])").find(kUp), nullptr);
  // A name is no regex, no glob and no part.
  const QuantConfig literal = compressed(groups + R"(,"ignore":["layers.0","model.*"])");
  EXPECT_NE(literal.find(kUp), nullptr);
  // re.match is anchored at the start only.
  const QuantConfig regex = compressed(groups + R"(,"ignore":["re:model\\.layers\\.0","re:mlp"])");
  EXPECT_EQ(regex.find(kUp), nullptr);
  EXPECT_NE(regex.find("model.layers.1.mlp.up_proj"), nullptr);
}

TEST(CompressedConfig, ReadsPresetGroups) {
  const QuantConfig config = compressed(
      R"("format":"mixed-precision","config_groups":{"NVFP4A16":["re:.*mlp"],"fp8_dynamic":)"
      R"(["Linear"]})");
  EXPECT_EQ(config.find(kUp)->format, WeightFormat::kNvfp4);
  EXPECT_FALSE(config.find(kUp)->static_input);
  EXPECT_EQ(config.find(kQ)->format, WeightFormat::kF8);
}

TEST(CompressedConfig, RefusesWhatItDoesNotKnow) {
  const auto groups = [](const std::string& group) {
    return "\"config_groups\":{\"g\":{" + group + "}}";
  };
  expect_bad(ErrorCode::kUnsupported, {"num_bits 8", "\"int\"", "config_groups.g"}, [&] {
    compressed(groups(R"("weights":{"num_bits":8,"type":"int","strategy":"channel"},)"
                      R"("targets":["Linear"])"));
  });
  expect_bad(ErrorCode::kUnsupported, {"strategy \"block\""}, [&] {
    compressed(groups(R"("weights":{"num_bits":8,"type":"float","strategy":"block"},)"
                      R"("targets":["Linear"])"));
  });
  expect_bad(ErrorCode::kUnsupported, {"\"marlin-24\""}, [&] {
    compressed(R"("format":"marlin-24",)" + groups(kNvfp4Weights + R"(,"targets":["Linear"])"));
  });
  expect_bad(ErrorCode::kCheckpoint, {"mxfp4-pack-quantized", "described as nvfp4"}, [&] {
    compressed(R"("format":"mxfp4-pack-quantized",)" +
               groups(kNvfp4Weights + R"(,"targets":["Linear"])"));
  });
  expect_bad(ErrorCode::kUnsupported, {"preset \"W8A8\""},
             [&] { compressed(R"("config_groups":{"W8A8":["Linear"]})"); });
  expect_bad(ErrorCode::kCheckpoint, {"config_groups.g has no targets"},
             [&] { compressed(groups(kNvfp4Weights)); });
  expect_bad(ErrorCode::kCheckpoint, {"no object \"config_groups\""},
             [&] { compressed("\"a\":1"); });
  expect_bad(ErrorCode::kCheckpoint, {"regex", "malformed"},
             [&] { compressed(groups(kNvfp4Weights + R"(,"targets":["re:("])")); });
  expect_bad(ErrorCode::kUnsupported, {"transform_config"}, [&] {
    compressed(R"("transform_config":{"config_groups":{"u":{}}},)" +
               groups(kNvfp4Weights + R"(,"targets":["Linear"])"));
  });
  expect_bad(ErrorCode::kUnsupported, {"sparse-24-bitmask"}, [&] {
    compressed(R"("sparsity_config":{"format":"sparse-24-bitmask"},)" +
               groups(kNvfp4Weights + R"(,"targets":["Linear"])"));
  });
}

TEST(Config, RefusesOtherMethodsAndBrokenFiles) {
  expect_bad(ErrorCode::kUnsupported, {"quant_method \"gptq\""},
             [] { quantized(R"("quant_method":"gptq")"); });
  expect_bad(ErrorCode::kUnsupported, {"quant_method \"mxfp4\""},
             [] { quantized(R"("quant_method":"mxfp4")"); });
  expect_bad(ErrorCode::kUnsupported, {"quant_method \"\""}, [] { quantized(""); });
  expect_bad(ErrorCode::kCheckpoint, {"hf_quant_config.json", "as well"}, [] {
    parse(R"({"quantization_config":{"quant_method":"compressed-tensors"}})",
          R"({"quantization":{"quant_algo":"NVFP4"}})");
  });
  expect_bad(ErrorCode::kCheckpoint, {"dir/config.json", "parse error"}, [] { parse("{"); });
  expect_bad(ErrorCode::kCheckpoint, {"dir/config.json", "not an object"}, [] { parse("[]"); });
  expect_bad(ErrorCode::kCheckpoint, {"\"a\" stands twice"}, [] { parse(R"({"a":1,"a":2})"); });
  expect_bad(ErrorCode::kCheckpoint, {"nested"}, [] { parse(std::string(100000, '[')); });
  expect_bad(ErrorCode::kCheckpoint, {"quantization_config is not an object"},
             [] { parse(R"({"quantization_config":3})"); });
  expect_bad(ErrorCode::kCheckpoint, {"hf_quant_config.json", "\"quantization\""},
             [] { parse("{}", "{}"); });
}

}  // namespace
}  // namespace nibble
