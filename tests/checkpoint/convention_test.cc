#include "checkpoint/convention.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "checkpoint/config.h"
#include "tests/checkpoint/model_folder.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using test::expect_error;
using test::read_file;
using test::SafetensorsText;
using test::TempDir;
using test::write_file;

struct Weight {
  std::vector<uint8_t> codes, scales;
  WeightTensor tensor;
};

Weight random_weight(WeightFormat format, int64_t n, int64_t k, float global, float input) {
  std::mt19937 random(7);
  Weight w;
  w.codes.resize(static_cast<size_t>(n * k / 2));
  w.scales.resize(static_cast<size_t>(n * k / block_size(format)));
  for (uint8_t& c : w.codes) c = static_cast<uint8_t>(random());
  for (uint8_t& s : w.scales) s = static_cast<uint8_t>(random() % 0x7F);
  w.tensor.format = format;
  w.tensor.n = n;
  w.tensor.k = k;
  w.tensor.codes = w.codes.data();
  w.tensor.scales = w.scales.data();
  if (format == WeightFormat::kNvfp4) w.tensor.segments = {{0, global}};
  w.tensor.input_decode_scale = input;
  return w;
}

class Conventions : public testing::Test {
 protected:
  void SetUp() override {
    src_ = dir_.path() / "src";
    fs::create_directory(src_);
    write_file(src_ / "config.json", R"({"zeta":1,"model_type":"llama","alpha":2})");
    write_file(src_ / "model.safetensors", SafetensorsText().text());
  }

  Checkpoint write(const fs::path& dst, const Weight& w, const ExportConfig& config) {
    CheckpointWriter writer(
        dst, linear_tensors("m.up_proj", w.tensor.format, w.tensor.n, w.tensor.k, config.convention,
                            config.static_input_scale));
    write_linear(writer, "m.up_proj", w.tensor, config.convention);
    write_configs(writer, Checkpoint::open(src_), config);
    writer.finish();
    return Checkpoint::open(dst);
  }

  TempDir dir_;
  fs::path src_;
};

TEST_F(Conventions, WeightsComeBackBitForBit) {
  const float global = 1.0f / (2688.0f / 0.37f);
  int count = 0;
  for (const Convention convention : {Convention::kModelOpt, Convention::kCompressedTensors}) {
    for (const WeightFormat format : {WeightFormat::kNvfp4, WeightFormat::kMxfp4}) {
      for (const bool input : {false, true}) {
        if (input && format == WeightFormat::kMxfp4) continue;
        const Weight w = random_weight(format, 5, 64, global, input ? global * 3 : 0.0f);
        const fs::path dst = dir_.path() / std::to_string(count++);
        const Checkpoint checkpoint = write(dst, w,
                                            {.convention = convention,
                                             .format = format,
                                             .ignore = {"lm_head"},
                                             .static_input_scale = input});
        const WeightTensor back = checkpoint.linear("m.up_proj");
        EXPECT_EQ(back.format, format);
        EXPECT_EQ(back.n, 5);
        EXPECT_EQ(back.k, 64);
        EXPECT_EQ(std::memcmp(back.codes, w.codes.data(), w.codes.size()), 0);
        EXPECT_EQ(std::memcmp(back.scales, w.scales.data(), w.scales.size()), 0);
        ASSERT_EQ(back.segments.size(), w.tensor.segments.size());
        if (format == WeightFormat::kNvfp4) {
          EXPECT_EQ(back.segments[0].global_decode_scale, global);
        }
        EXPECT_NEAR(back.input_decode_scale, w.tensor.input_decode_scale, 1e-10);
        EXPECT_EQ(checkpoint.quant_config().find("lm_head"), nullptr);
        EXPECT_NE(checkpoint.quant_config().find("m.up_proj"), nullptr);
      }
    }
  }
  EXPECT_EQ(count, 6);
}

TEST_F(Conventions, QuantizersGlobalScalesSurviveExactly) {
  std::mt19937 random(3);
  std::vector<OutputTensor> plan;
  std::vector<float> globals;
  const Weight w = random_weight(WeightFormat::kNvfp4, 1, 16, 1.0f, 0.0f);
  for (int i = 0; i < 3000; ++i) {
    // Any amax between 2^-20 and 2^20.
    const float amax = std::ldexp(1.0f + static_cast<float>(random() % (1 << 23)) * 0x1p-23f,
                                  static_cast<int>(random() % 40) - 20);
    globals.push_back(1.0f / (2688.0f / amax));
    for (OutputTensor& t : linear_tensors(fmt::format("m{}", i), WeightFormat::kNvfp4, 1, 16,
                                          Convention::kCompressedTensors)) {
      plan.push_back(std::move(t));
    }
  }
  CheckpointWriter writer(dir_.path() / "out", plan);
  for (size_t i = 0; i < globals.size(); ++i) {
    WeightTensor tensor = w.tensor;
    tensor.segments[0].global_decode_scale = globals[i];
    write_linear(writer, fmt::format("m{}", i), tensor, Convention::kCompressedTensors);
  }
  write_configs(writer, Checkpoint::open(src_), {.convention = Convention::kCompressedTensors});
  writer.finish();
  const Checkpoint checkpoint = Checkpoint::open(dir_.path() / "out");
  for (size_t i = 0; i < globals.size(); ++i) {
    ASSERT_EQ(checkpoint.linear(fmt::format("m{}", i)).segments[0].global_decode_scale, globals[i]);
  }
}

TEST_F(Conventions, RowsMayBeWrittenInParts) {
  constexpr int64_t kRows = 5, kColumns = 64, kFirst = 2;
  for (const Convention convention : {Convention::kModelOpt, Convention::kCompressedTensors}) {
    for (const WeightFormat format : {WeightFormat::kNvfp4, WeightFormat::kMxfp4}) {
      const Weight w = random_weight(format, kRows, kColumns, 0.5f, 0.0f);
      const fs::path whole = dir_.path() / "whole", parts = dir_.path() / "parts";
      fs::remove_all(whole);
      fs::remove_all(parts);
      write(whole, w, {.convention = convention, .format = format});
      CheckpointWriter writer(parts,
                              linear_tensors("m.up_proj", format, kRows, kColumns, convention));
      WeightTensor first = w.tensor, rest = w.tensor;
      first.n = kFirst;
      rest.n = kRows - kFirst;
      rest.codes += kFirst * kColumns / 2;
      rest.scales += kFirst * kColumns / block_size(format);
      write_linear(writer, "m.up_proj", rest, convention, kFirst);
      write_linear(writer, "m.up_proj", first, convention);
      writer.finish();
      EXPECT_EQ(read_file(whole / "model.safetensors"), read_file(parts / "model.safetensors"));
    }
  }
}

TEST_F(Conventions, ConfigsSayWhatRealExportsSay) {
  const Weight w = random_weight(WeightFormat::kNvfp4, 1, 16, 0.5f, 0.0f);
  const fs::path mo = dir_.path() / "mo", ct = dir_.path() / "ct";
  write(mo, w, {.convention = Convention::kModelOpt, .ignore = {"lm_head"}});
  write(ct, w, {.convention = Convention::kCompressedTensors, .ignore = {"lm_head"}});

  const std::string text = read_file(mo / "config.json");
  EXPECT_LT(text.find("zeta"), text.find("alpha"));  // the source's order
  const Json config = Json::parse(text);
  EXPECT_EQ(config["model_type"], "llama");
  const Json& inner = config["quantization_config"];
  EXPECT_EQ(inner["quant_method"], "modelopt");
  EXPECT_EQ(inner["quant_algo"], "W4A16_NVFP4");
  EXPECT_EQ(inner["ignore"], Json::array({"lm_head"}));
  EXPECT_EQ(inner["config_groups"]["group_0"]["targets"], Json::array({"Linear"}));
  const Json hf = Json::parse(read_file(mo / "hf_quant_config.json"));
  EXPECT_EQ(hf["producer"]["name"], "modelopt");
  EXPECT_EQ(hf["quantization"]["quant_algo"], "W4A16_NVFP4");
  EXPECT_EQ(hf["quantization"]["group_size"], 16);
  EXPECT_EQ(hf["quantization"]["exclude_modules"], Json::array({"lm_head"}));

  EXPECT_FALSE(fs::exists(ct / "hf_quant_config.json"));
  const Json quant = Json::parse(read_file(ct / "config.json"))["quantization_config"];
  EXPECT_EQ(quant["quant_method"], "compressed-tensors");
  EXPECT_EQ(quant["format"], "nvfp4-pack-quantized");
  EXPECT_EQ(quant["quantization_status"], "compressed");
  EXPECT_EQ(quant["ignore"], Json::array({"lm_head"}));
  const Json& group = quant["config_groups"]["group_0"];
  EXPECT_EQ(group["targets"], Json::array({"Linear"}));
  EXPECT_EQ(group["weights"]["strategy"], "tensor_group");
  EXPECT_EQ(group["weights"]["num_bits"], 4);
  EXPECT_EQ(group["weights"]["group_size"], 16);
  EXPECT_TRUE(group["input_activations"].is_null());
}

TEST_F(Conventions, CopiesTheSmallFilesOnly) {
  for (const char* name :
       {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "tokenizer.model",
        "merges.txt", "generation_config.json", "LICENSE", "model.safetensors.index.json",
        "hf_quant_config.json", "pytorch_model.bin", ".hidden.json", "model.gguf"}) {
    write_file(src_ / name, name[0] == 'h' ? R"({"quantization":{}})" : "{}");
  }
  const Weight w = random_weight(WeightFormat::kMxfp4, 1, 32, 0.0f, 0.0f);
  const fs::path dst = dir_.path() / "out";
  write(dst, w, {.convention = Convention::kCompressedTensors, .format = WeightFormat::kMxfp4});
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(dst)) names.push_back(entry.path().filename());
  EXPECT_THAT(names, testing::UnorderedElementsAre(
                         "config.json", "model.safetensors", "tokenizer.json",
                         "tokenizer_config.json", "chat_template.jinja", "tokenizer.model",
                         "merges.txt", "generation_config.json", "LICENSE"));
}

TEST_F(Conventions, RefusesWhatCannotBeWritten) {
  expect_error(ErrorCode::kInvalidArgument, {"m", "bf16"},
               [] { linear_tensors("m", WeightFormat::kBF16, 1, 16, Convention::kModelOpt); });
  expect_error(ErrorCode::kInvalidArgument, {"k = 24", "multiple of 16"},
               [] { linear_tensors("m", WeightFormat::kNvfp4, 1, 24, Convention::kModelOpt); });
  expect_error(ErrorCode::kInvalidArgument, {"mxfp4", "activation scale"}, [] {
    linear_tensors("m", WeightFormat::kMxfp4, 1, 32, Convention::kModelOpt, true);
  });
  const Weight w = random_weight(WeightFormat::kNvfp4, 2, 16, 0.5f, 0.0f);
  CheckpointWriter writer(dir_.path() / "out",
                          linear_tensors("m", WeightFormat::kNvfp4, 2, 16, Convention::kModelOpt));
  WeightTensor two = w.tensor;
  two.segments.push_back({1, 0.25f});
  expect_error(ErrorCode::kInvalidArgument, {"2 global scales"},
               [&] { write_linear(writer, "m", two, Convention::kModelOpt); });
  WeightTensor zero = w.tensor;
  zero.segments[0].global_decode_scale = 0.0f;
  expect_error(ErrorCode::kInvalidArgument, {"scale 0 can't be stored"},
               [&] { write_linear(writer, "m", zero, Convention::kModelOpt); });
}

}  // namespace
}  // namespace nibble
