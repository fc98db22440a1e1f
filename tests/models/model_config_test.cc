#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "models/config.h"
#include "models/registry.h"
#include "models/rope_table.h"
#include "nibble/error.h"

namespace nibble {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

json llama() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"hidden_size", 64},
          {"intermediate_size", 96},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"vocab_size", 160},
          {"max_position_embeddings", 1024},
          {"rms_norm_eps", 1e-5}};
}

ModelConfig parse(const json& config) {
  return parse_model_config(config.dump(), "folder/config.json");
}

// Expects a refusal that names the file and contains `part`.
void expect_refused(const json& config, ErrorCode code, const std::string& part) {
  try {
    parse(config);
    ADD_FAILURE() << "accepted " << config.dump();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    EXPECT_THAT(e.what(), HasSubstr("folder/config.json"));
    EXPECT_THAT(e.what(), HasSubstr(part));
  }
}

TEST(ModelConfig, ReadsFieldsAndDefaults) {
  json config = llama();
  config["eos_token_id"] = {2, 7};
  config["num_key_value_heads"] = nullptr;
  const ModelConfig c = parse(config);
  EXPECT_EQ(c.architecture, "LlamaForCausalLM");
  EXPECT_EQ(c.hidden_size, 64);
  EXPECT_EQ(c.intermediate_size, 96);
  EXPECT_EQ(c.num_layers, 2);
  EXPECT_EQ(c.num_heads, 4);
  EXPECT_EQ(c.num_kv_heads, 4);
  EXPECT_EQ(c.head_dim, 16);
  EXPECT_EQ(c.vocab_size, 160);
  EXPECT_EQ(c.context_length, 1024);
  EXPECT_FLOAT_EQ(c.rms_norm_eps, 1e-5f);
  EXPECT_FALSE(c.tied_embeddings);
  EXPECT_FALSE(c.attention_bias);
  EXPECT_EQ(c.rope.type, RopeType::kDefault);
  EXPECT_EQ(c.rope.theta, 10000.0);
  EXPECT_THAT(c.eos_ids, ElementsAre(2, 7));
}

TEST(ModelConfig, NamesTheFieldThatIsWrong) {
  for (const char* field : {"hidden_size", "intermediate_size", "num_hidden_layers",
                            "num_attention_heads", "vocab_size", "max_position_embeddings"}) {
    const std::string quoted = fmt::format("'{}'", field);
    json config = llama();
    config.erase(field);
    expect_refused(config, ErrorCode::kCheckpoint, quoted);
    for (const json& bad : {json(0), json(-1), json(1.5), json("64"), json(18446744073709551615u),
                            json(int64_t{1} << 40), json::array({64})}) {
      config[field] = bad;
      expect_refused(config, ErrorCode::kCheckpoint, quoted);
    }
  }
}

TEST(ModelConfig, RefusesContradictions) {
  json config = llama();
  config["num_key_value_heads"] = 3;
  expect_refused(config, ErrorCode::kCheckpoint, "'num_key_value_heads' 3");
  config = llama();
  config["num_attention_heads"] = 5;
  config["num_key_value_heads"] = 5;
  expect_refused(config, ErrorCode::kCheckpoint, "'head_dim'");
  config = llama();
  config["head_dim"] = 15;
  expect_refused(config, ErrorCode::kCheckpoint, "must be even");
  config = llama();
  config["tie_word_embeddings"] = "yes";
  expect_refused(config, ErrorCode::kCheckpoint, "'tie_word_embeddings'");
  config = llama();
  config["eos_token_id"] = -1;
  expect_refused(config, ErrorCode::kCheckpoint, "'eos_token_id'");
  config = llama();
  config["rms_norm_eps"] = 0;
  expect_refused(config, ErrorCode::kCheckpoint, "'rms_norm_eps'");
  config = llama();
  config["architectures"] = json::array();
  expect_refused(config, ErrorCode::kCheckpoint, "'architectures'");
  expect_refused(json::array({1}), ErrorCode::kCheckpoint, "object");
}

TEST(ModelConfig, RefusesWhatNoForwardComputes) {
  json config = llama();
  config["hidden_act"] = "gelu";
  expect_refused(config, ErrorCode::kUnsupported, "gelu");
  config = llama();
  config["use_sliding_window"] = true;
  expect_refused(config, ErrorCode::kUnsupported, "'use_sliding_window'");
  config = llama();
  config["partial_rotary_factor"] = 0.5;
  expect_refused(config, ErrorCode::kUnsupported, "'partial_rotary_factor'");
  for (const char* type : {"dynamic", "longrope", "su"}) {
    config = llama();
    config["rope_scaling"] = {{"type", type}, {"factor", 2.0}};
    expect_refused(config, ErrorCode::kUnsupported, type);
  }
  config = llama();
  config["rope_parameters"] = {{"full_attention", {{"rope_type", "default"}}}};
  expect_refused(config, ErrorCode::kUnsupported, "full_attention");
}

TEST(ModelConfig, RefusesBrokenJson) {
  EXPECT_THROW(parse_model_config("{\"hidden_size\": ", "config.json"), Error);
  EXPECT_THROW(parse_model_config("", "config.json"), Error);
  EXPECT_THROW(parse_generation_eos("[", "generation_config.json"), Error);
  EXPECT_THAT(parse_generation_eos("{\"eos_token_id\": 5}", "g"), ElementsAre(5));
  EXPECT_THAT(parse_generation_eos("{}", "g"), ElementsAre());
}

TEST(ModelConfig, RopeSettingsOfBothGenerations) {
  json config = llama();
  config["rope_theta"] = 5e5;
  config["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", 8.0},
                            {"low_freq_factor", 1.0},
                            {"high_freq_factor", 4.0},
                            {"original_max_position_embeddings", 64}};
  ModelConfig c = parse(config);
  EXPECT_EQ(c.rope.type, RopeType::kLlama3);
  EXPECT_EQ(c.rope.theta, 5e5);
  EXPECT_EQ(c.rope.original_context, 64);
  config["rope_parameters"] = {{"rope_type", "yarn"},
                               {"rope_theta", 1e6},
                               {"factor", 4.0},
                               {"original_max_position_embeddings", 512}};
  c = parse(config);
  EXPECT_EQ(c.rope.type, RopeType::kYarn);
  EXPECT_EQ(c.rope.theta, 1e6);
  EXPECT_EQ(c.context_length, 2048);
  EXPECT_NEAR(c.rope.attention_factor, 1.138629, 1e-6);
  config["rope_parameters"].erase("factor");
  expect_refused(config, ErrorCode::kCheckpoint, "'factor'");
}

TEST(RopeTable, DefaultAndLinear) {
  RopeConfig rope;
  EXPECT_THAT(make_rope_table(rope, 4).inv_freq, ElementsAre(1.0f, 0.01f));
  rope.type = RopeType::kLinear;
  rope.factor = 4.0;
  EXPECT_THAT(make_rope_table(rope, 4).inv_freq, ElementsAre(0.25f, 0.0025f));
}

TEST(RopeTable, Llama3KeepsShortWavesAndStretchesLongOnes) {
  RopeConfig rope;
  rope.type = RopeType::kLlama3;
  rope.factor = 8.0;
  rope.original_context = 64;
  const std::vector<float> freq = make_rope_table(rope, 8).inv_freq;
  ASSERT_EQ(freq.size(), 4u);
  EXPECT_EQ(freq[0], 1.0f);                // turns 10 times in 64 positions
  EXPECT_NEAR(freq[1], 0.0130423f, 1e-7);  // 1.01859 times: 0.0061971 of 0.1, the rest of 0.0125
  EXPECT_FLOAT_EQ(freq[3], 0.001f / 8.0f);
}

TEST(Registry, KnowsItsModelsAndListsThem) {
  EXPECT_EQ(find_architecture("Qwen3ForCausalLM").name, "Qwen3ForCausalLM");
  try {
    find_architecture("MambaForCausalLM");
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
    EXPECT_THAT(e.what(), HasSubstr("MambaForCausalLM"));
    EXPECT_THAT(e.what(), HasSubstr("LlamaForCausalLM, Qwen3ForCausalLM"));
  }
}

}  // namespace
}  // namespace nibble
