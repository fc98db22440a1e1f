#include "checkpoint/checkpoint.h"
#include "formats/e4m3.h"
#include "nibble/quantize.h"
#include "tests/quantizer/tiny_model.h"

namespace nibble {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
namespace fs = std::filesystem;

constexpr const char* kTied = R"({"model_type": "llama", "tie_word_embeddings": true})";
constexpr const char* kApart = R"({"model_type": "llama", "tie_word_embeddings": false})";

class QuantizeLmHead : public ::testing::Test {
 protected:
  void write_source(const char* config, bool with_head) {
    test::TinyModel model(1);
    if (with_head) model.add("lm_head.weight", 40, 64);
    model.write(src_);
    test::write_file(src_ / "config.json", config);
  }
  QuantizeReport run(const QuantizeOptions& options) {
    return quantize_checkpoint(src_, dst_, options, Device::cpu(2));
  }
  void expect_embedding_unchanged() const {
    const std::string name = "model.embed_tokens.weight";
    const auto source = Checkpoint::open(src_), made = Checkpoint::open(dst_);
    const auto a = source.bytes(name), b = made.bytes(name);
    EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end()));
  }

  test::TempDir dir_;
  fs::path src_ = dir_.path() / "src", dst_ = dir_.path() / "dst";
};

struct HeadCase {
  const char* config;
  bool with_head;
  LmHead option;
  WeightFormat expected;
  bool stored;  // as lm_head
};

TEST_F(QuantizeLmHead, IsStoredInTheFormatAskedFor) {
  const HeadCase cases[] = {
      {kTied, false, LmHead::kDefault, WeightFormat::kF8, true},
      {kTied, false, LmHead::kFp8, WeightFormat::kF8, true},
      {kTied, false, LmHead::kNvfp4, WeightFormat::kNvfp4, true},
      {kTied, false, LmHead::kKeep, WeightFormat::kBF16, false},
      {kTied, true, LmHead::kDefault, WeightFormat::kF8, true},
      {kApart, true, LmHead::kDefault, WeightFormat::kBF16, true},
      {kApart, true, LmHead::kFp8, WeightFormat::kF8, true},
      {kApart, true, LmHead::kNvfp4, WeightFormat::kNvfp4, true},
      {kApart, true, LmHead::kKeep, WeightFormat::kBF16, true},
  };
  for (const HeadCase& c : cases) {
    for (const WeightFormat format : {WeightFormat::kNvfp4, WeightFormat::kMxfp4}) {
      for (const Convention convention : {Convention::kModelOpt, Convention::kCompressedTensors}) {
        SCOPED_TRACE(fmt::format("{} {} option {} head {} {}", to_string(format),
                                 to_string(convention), static_cast<int>(c.option), c.with_head,
                                 c.config));
        fs::remove_all(src_);
        write_source(c.config, c.with_head);
        QuantizeOptions options{.format = format, .convention = convention, .lm_head = c.option};
        options.overwrite = true;
        const QuantizeReport report = run(options);
        const bool quantized = c.expected != WeightFormat::kBF16;
        EXPECT_EQ(report.tensors.size(), quantized ? 8u : 7u);
        if (quantized) {
          EXPECT_EQ(report.tensors[0].name, "lm_head");
          EXPECT_EQ(report.tensors[0].format, c.expected);
          EXPECT_THAT(report.unquantized, IsEmpty());
        } else {
          EXPECT_THAT(report.unquantized, ElementsAre("lm_head"));
        }

        const Checkpoint made = Checkpoint::open(dst_);
        EXPECT_EQ(made.contains("lm_head"), c.stored);
        EXPECT_EQ(made.linear("model.layers.0.mlp.up_proj").format, format);
        EXPECT_EQ(made.linear("model.embed_tokens").format, WeightFormat::kBF16);
        if (c.stored) {
          const WeightTensor head = made.linear("lm_head");
          EXPECT_EQ(head.format, c.expected);
          EXPECT_EQ(head.n, 40);
          EXPECT_EQ(head.k, 64);
        }
        EXPECT_EQ(made.config_json().find("\"tie_word_embeddings\": true") != std::string::npos,
                  c.config == kTied && !quantized);
        expect_embedding_unchanged();
      }
    }
  }
}

TEST_F(QuantizeLmHead, Fp8RowsReachTheirLargestCodeAndStayNear) {
  write_source(kTied, false);
  const QuantizeReport report = run({.lm_head = LmHead::kFp8});
  EXPECT_GT(report.tensors.at(0).snr_db, 30);
  EXPECT_LT(report.tensors.at(0).snr_db, 36);
  const Checkpoint source = Checkpoint::open(src_), made = Checkpoint::open(dst_);
  const WeightTensor head = made.linear("lm_head");
  const auto bytes = source.bytes("model.embed_tokens.weight");
  for (int64_t row = 0; row < head.n; ++row) {
    uint8_t largest = 0;
    for (int64_t i = row * head.k; i < (row + 1) * head.k; ++i) {
      largest = std::max<uint8_t>(largest, head.codes[i] & 0x7F);
      const float w = bf16_to_float(static_cast<uint16_t>(bytes[2 * i] | bytes[2 * i + 1] << 8));
      const float q = e4m3_to_float(head.codes[i]) * head.row_scales[row];
      // Half a step: 2^-4 of a normal code's value, 2^-10 where codes are subnormal.
      EXPECT_LE(std::fabs(w - q),
                1.0001f * std::max(std::fabs(w) * 0x1p-4f, head.row_scales[row] * 0x1p-10f));
    }
    EXPECT_EQ(largest, kE4m3MaxCode);
  }
}

TEST_F(QuantizeLmHead, AnIgnoredHeadStays) {
  write_source(kTied, false);
  QuantizeOptions options{.lm_head = LmHead::kNvfp4};
  options.ignore = {"lm_head"};
  EXPECT_THAT(run(options).unquantized, Contains("lm_head"));
  EXPECT_FALSE(Checkpoint::open(dst_).contains("lm_head"));
}

TEST_F(QuantizeLmHead, RefusesWhatIsNotThere) {
  write_source(kApart, false);
  for (const LmHead option : {LmHead::kFp8, LmHead::kNvfp4}) {
    test::expect_error(ErrorCode::kUnsupported, {"src", "no output matrix", "lm_head.weight"},
                       [&] { run({.lm_head = option}); });
  }
  EXPECT_EQ(run({}).tensors.size(), 7u);  // the default takes what there is
}

TEST_F(QuantizeLmHead, RefusesNanAndOddSizes) {
  std::string bytes = test::filled(8 * 40 * 2, 0x3C);
  test::TinyModel(1).add_raw("lm_head.weight", "BF16", "[8,40]", bytes).write(src_);
  test::expect_error(ErrorCode::kUnsupported, {"lm_head", "k = 40", "multiple of 16"},
                     [&] { run({.lm_head = LmHead::kNvfp4}); });
  run({.lm_head = LmHead::kFp8});
  EXPECT_EQ(Checkpoint::open(dst_).linear("lm_head").k, 40);
  fs::remove_all(dst_);
  for (const char* value : {"\x80\x7F", "\xC0\xFF"}) {  // Inf, -NaN
    bytes.replace(100, 2, value, 2);
    test::TinyModel(1).add_raw("lm_head.weight", "BF16", "[8,40]", bytes).write(src_);
    test::expect_error(ErrorCode::kCheckpoint, {"lm_head.weight", "NaN or Inf"},
                       [&] { run({.lm_head = LmHead::kFp8}); });
  }
}

}  // namespace
}  // namespace nibble
