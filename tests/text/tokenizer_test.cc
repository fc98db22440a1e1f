#include "nibble/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "nibble/error.h"
#include "tests/text/tiny_tokenizers.h"

namespace nibble {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr Tokenizer::EncodeOptions kPlain{.add_special_tokens = false, .parse_special = false};

void expect_refused(const std::string& text, std::string_view message) {
  try {
    Tokenizer::from_json(text, "tiny.json");
    ADD_FAILURE() << "loaded, expected: " << message;
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kTokenizer) << e.what();
    EXPECT_THAT(e.what(), HasSubstr("tiny.json"));
    EXPECT_THAT(e.what(), HasSubstr(std::string(message)));
  }
}

// Refused after `patch` has been merged (RFC 7396) into the byte-level file.
void expect_patch_refused(const char* patch, std::string_view message) {
  json file = tiny_byte_level();
  file.merge_patch(json::parse(patch));
  expect_refused(file.dump(), message);
}

TEST(TokenizerTest, MergesByRankThenLeftToRight) {
  const Tokenizer tokenizer = make_tokenizer(tiny_byte_level());
  EXPECT_THAT(tokenizer.encode("abc", kPlain), ElementsAre(9));
  EXPECT_THAT(tokenizer.encode("bcab", kPlain), ElementsAre(8, 7));
  EXPECT_THAT(tokenizer.encode("aaa", kPlain), ElementsAre(12, 1));
  EXPECT_THAT(tokenizer.encode("ab abc é", kPlain), ElementsAre(7, 4, 9, 4, 11));
  EXPECT_THAT(tokenizer.encode("", kPlain), IsEmpty());
}

TEST(TokenizerTest, LongWordsMergeLikeShortOnes) {
  const Tokenizer tokenizer = make_tokenizer(tiny_byte_level());
  std::string text;
  std::vector<int32_t> expected;
  for (int i = 0; i < 1000; ++i) {
    text += "abcaab";
    expected.insert(expected.end(), {9, 1, 7});
  }
  EXPECT_EQ(tokenizer.encode(text, kPlain), expected);
}

TEST(TokenizerTest, AMegabyteWithoutSpacesIsNotQuadratic) {
  const Tokenizer tokenizer = make_tokenizer(tiny_byte_level());
  const std::vector<int32_t> ids = tokenizer.encode(std::string(1 << 20, 'a'), kPlain);
  EXPECT_EQ(ids, std::vector<int32_t>(1 << 19, 12));
}

TEST(TokenizerTest, AMegabyteOfCombiningMarksIsNotQuadratic) {
  json file = tiny_byte_level();
  file["normalizer"] = {{"type", "NFC"}};
  file["model"]["vocab"]["Ì"] = 13;
  file["model"]["vocab"]["Ģ"] = 14;
  file["model"]["vocab"]["§"] = 15;
  file["added_tokens"].erase(1);
  std::string text;
  std::vector<int32_t> expected;
  constexpr int kHalf = 1 << 18;
  for (int i = 0; i < kHalf; ++i) text += "\u0300";  // class 230
  for (int i = 0; i < kHalf; ++i) text += "\u0327";  // class 202, sorts before
  for (int i = 0; i < kHalf; ++i) expected.insert(expected.end(), {13, 15});
  for (int i = 0; i < kHalf; ++i) expected.insert(expected.end(), {13, 14});
  EXPECT_EQ(make_tokenizer(file).encode(text, kPlain), expected);
}

TEST(TokenizerTest, SpecialTokensAndTemplate) {
  const Tokenizer tokenizer = make_tokenizer(tiny_byte_level());
  EXPECT_THAT(tokenizer.encode("a<|end|>b"), ElementsAre(0, 1, 0, 2));
  EXPECT_THAT(tokenizer.encode("a<|end|>b", {.add_special_tokens = false}), ElementsAre(1, 0, 2));
  // Not special, so looked for in any case; characters the vocabulary lacks are dropped.
  EXPECT_THAT(tokenizer.encode("a<think>b<|end|>", kPlain), ElementsAre(1, 13, 2));
  EXPECT_TRUE(tokenizer.is_special(0));
  EXPECT_FALSE(tokenizer.is_special(13));
  EXPECT_FALSE(tokenizer.is_special(-1));
  EXPECT_EQ(tokenizer.vocab_size(), 14);
  EXPECT_EQ(tokenizer.token_to_id("<think>"), 13);
  EXPECT_EQ(tokenizer.token_to_id("Ġab"), 10);
  EXPECT_EQ(tokenizer.token_to_id("zzz"), std::nullopt);
  EXPECT_EQ(tokenizer.id_to_token(10), "Ġab");
  EXPECT_EQ(tokenizer.id_to_token(13), "<think>");
  EXPECT_EQ(tokenizer.id_to_token(14), "");
  EXPECT_EQ(tokenizer.id_to_token(-1), "");
}

TEST(TokenizerTest, IgnoreMergesTakesWholeWords) {
  json file = tiny_byte_level();
  file["model"]["vocab"]["cab"] = 13;
  file["added_tokens"].erase(1);
  EXPECT_THAT(make_tokenizer(file).encode("cab", kPlain), ElementsAre(3, 7));
  file["model"]["ignore_merges"] = true;
  EXPECT_THAT(make_tokenizer(file).encode("cab", kPlain), ElementsAre(13));
}

TEST(TokenizerTest, ByteFallback) {
  const Tokenizer tokenizer = make_tokenizer(tiny_sentencepiece());
  EXPECT_THAT(tokenizer.encode("ab ab", kPlain), ElementsAre(6, 6));
  EXPECT_THAT(tokenizer.encode("é", kPlain), ElementsAre(2, 7 + 0xC3, 7 + 0xA9));
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{6, 2, 7 + 0xC3, 7 + 0xA9, 6}), "ab é ab");
}

TEST(TokenizerTest, BrokenUtf8CountsAsReplacementCharacters) {
  const Tokenizer tokenizer = make_tokenizer(tiny_sentencepiece());
  EXPECT_EQ(tokenizer.encode("a\xF0\x9F\x98"  // one maximal subpart
                             "b\xED\xA0\x80"  // a surrogate: three
                             "\xC3",
                             kPlain),
            tokenizer.encode("a\uFFFDb\uFFFD\uFFFD\uFFFD\uFFFD", kPlain));
}

TEST(TokenizerTest, DecodeSkipsSpecialAndUnknownIds) {
  const Tokenizer tokenizer = make_tokenizer(tiny_byte_level());
  const std::vector<int32_t> ids{0, 9, 500, 10, 0, 13, -1};
  EXPECT_EQ(tokenizer.decode(ids), "abc ab<think>");
  EXPECT_EQ(tokenizer.decode(ids, false), "<|end|>abc ab<|end|><think>");
}

TEST(TokenizerTest, NormalizesMarksNewerThanThoseOfTokenizers) {
  json file = tiny_sentencepiece();
  file["normalizer"] = {{"type", "NFC"}};
  const Tokenizer tokenizer = make_tokenizer(file);
  // U+0EBA has class 9 since Unicode 12, U+0EB8 has 118: sorted by class.
  EXPECT_EQ(tokenizer.encode("\u0EB8\u0EBA", kPlain), tokenizer.encode("\u0EBA\u0EB8", kPlain));
}

TEST(TokenizerTest, ManyThreadsShareOne) {
  const Tokenizer tokenizer = make_tokenizer(tiny_byte_level());
  const std::string text = "abc ab é aaa <|end|> cab";
  const auto expected = tokenizer.encode(text);
  std::vector<std::vector<int32_t>> found(4);
  std::vector<std::jthread> threads;
  for (auto& out : found) {
    threads.emplace_back([&, copy = tokenizer] {
      for (int i = 0; i < 200; ++i) out = copy.encode(text);
    });
  }
  threads.clear();
  for (const auto& ids : found) EXPECT_EQ(ids, expected);
}

TEST(TokenizerTest, RefusesWhatItDoesNotKnowByName) {
  expect_patch_refused(R"({"normalizer": {"type": "Precompiled"}})",
                       "normalizer: unknown normalizer \"Precompiled\"");
  expect_patch_refused(
      R"({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "X"}]}})",
      "pre_tokenizer.pretokenizers[0]: unknown pre-tokenizer \"X\"");
  expect_patch_refused(R"({"decoder": {"type": "WordPiece"}})", "unknown decoder \"WordPiece\"");
  expect_patch_refused(R"({"post_processor": {"type": "BertProcessing"}})",
                       "unknown post-processor \"BertProcessing\"");
  expect_patch_refused(R"({"model": {"type": "Unigram"}})", "unknown model \"Unigram\"");
  expect_patch_refused(R"({"model": {"dropout": 0.1}})", "dropout");
  expect_patch_refused(R"({"model": {"end_of_word_suffix": "</w>"}})", "end_of_word_suffix");
}

TEST(TokenizerTest, RefusesBrokenModels) {
  expect_patch_refused(R"({"model": {"merges": ["a x"]}})", "the token \"x\"");
  expect_patch_refused(R"({"model": {"merges": [["b", "a"]]}})", "the token \"ba\"");
  expect_patch_refused(R"({"model": {"merges": ["ab"]}})", "expected two tokens");
  expect_patch_refused(R"({"model": {"merges": [["a", "b", "c"]]}})", "more than two");
  expect_patch_refused(R"({"model": {"merges": [["a"]]}})", "has 1 parts");
  expect_patch_refused(R"({"model": {"merges": [3]}})", "found number");
  expect_patch_refused(R"({"model": {"merges": [[{"a": 1}]]}})", "found an object");
  expect_patch_refused(R"({"model": {"merges": {}}})", "\"merges\" is missing");
  expect_patch_refused(R"({"model": {"merges": null}})", "\"merges\" is missing");
  expect_patch_refused(R"({"model": {"vocab": 1}})", "\"vocab\" is missing");
  expect_patch_refused(R"({"model": {"vocab": {"x": 1}}})", "have the same id, 1");
  expect_patch_refused(R"({"model": {"vocab": {"x": 2000000000}}})", "too far above");
  expect_patch_refused(R"({"model": {"vocab": {"x": 99999999999}}})", "beyond 31 bits");
  expect_patch_refused(R"({"model": {"vocab": {"x": -1}}})", "expected an id");
  expect_patch_refused(R"({"model": {"vocab": {"x": "y"}}})", "expected an id");
  expect_patch_refused(R"({"model": {"vocab": {"x": [1]}}})", "expected an id");
  expect_patch_refused(R"({"model": {"unk_token": "<none>"}})",
                       "\"<none>\" is not in the vocabulary");
  expect_patch_refused(R"({"model": {"fuse_unk": "yes"}})",
                       "model.fuse_unk: expected true or false");
  expect_patch_refused(R"({"model": null})", "\"model\" is missing");
}

TEST(TokenizerTest, RefusesBrokenAddedTokens) {
  const auto with = [](const char* patch) {
    json file = tiny_byte_level();
    file["added_tokens"][1].merge_patch(json::parse(patch));
    return file.dump();
  };
  expect_refused(with(R"({"id": 12})"), "has id 12, expected 13");
  expect_refused(with(R"({"id": 4000000000})"), "is above");
  expect_refused(with(R"({"id": "13"})"), "added_tokens[1].id: expected an integer");
  expect_refused(with(R"({"content": "<|end|>"})"), "appears twice");
  expect_refused(with(R"({"content": ""})"), "content is empty");
  expect_refused(with(R"({"lstrip": null})"), "\"lstrip\" is missing");
}

TEST(TokenizerTest, RefusesBrokenStages) {
  expect_patch_refused(R"({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a"},
                           "behavior": "Isolated", "invert": false}})",
                       "bad pattern \"(a\"");
  // Each means something else to PCRE than to the library that tokenizer.json is written for.
  for (const char* pattern :
       {"\\h", "[a&&b]", "[a[b]]", "(?i)a", "a{2}+", "a{,3}", "\\b", "(?m:.)"}) {
    json file = tiny_byte_level();
    file["pre_tokenizer"] = {{"type", "Split"},
                             {"pattern", {{"Regex", pattern}}},
                             {"behavior", "Isolated"},
                             {"invert", false}};
    expect_refused(file.dump(), "which is not supported");
  }
  expect_patch_refused(R"({"pre_tokenizer": {"type": "Split", "pattern": {"String": "a"},
                           "behavior": "isolated", "invert": false}})",
                       "unknown behavior");
  expect_patch_refused(R"({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                           {"type": "ByteLevel"}, {"type": "Digits"}]}})",
                       "behind ByteLevel");
  expect_patch_refused(R"({"post_processor": {"single": []}})", "expected one sequence");
  expect_patch_refused(R"({"post_processor": {"special_tokens": {"<|end|>": {"ids": [14]}}}})",
                       "14 is above 13");
  expect_patch_refused(R"({"decoder": {"type": "Sequence", "decoders": [{"type": "Fuse"},
                           {"type": "ByteFallback"}]}})",
                       "behind a stage that joins");
}

TEST(TokenizerTest, RefusesBrokenJson) {
  expect_refused("", "not valid JSON");
  expect_refused("{\"model\": ", "not valid JSON");
  expect_refused("[]", "expected an object");
  expect_refused("{\"a\": \"\xFF\"}", "not valid JSON");
  expect_refused("{\"a\": 1, \"a\": 2}", "the key \"a\" appears twice");
  expect_refused(std::string(100'000, '['), "nested deeper");
  std::string text = tiny_byte_level().dump();
  const std::string twice = "\"abc\":9,";
  const size_t at = text.find(twice);
  ASSERT_NE(at, std::string::npos);
  text.insert(at, twice);
  expect_refused(text, "have the same id, 9");
}

TEST(TokenizerTest, ACatastrophicPatternGivesUp) {
  json file = tiny_byte_level();
  file["pre_tokenizer"] = {{"type", "Split"},
                           {"pattern", {{"Regex", "(?:a|aa)+[bc]"}}},
                           {"behavior", "Isolated"},
                           {"invert", false}};
  const Tokenizer tokenizer = make_tokenizer(file);
  try {
    tokenizer.encode(std::string(200, 'a'));
    ADD_FAILURE() << "expected an error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kTokenizer);
    EXPECT_THAT(e.what(), HasSubstr("the pattern gave up"));
  }
}

TEST(TokenizerTest, AChainOfReplacementsCannotExplode) {
  json file = tiny_sentencepiece();
  const json step = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aaaaaaaa"}};
  file["normalizer"] = {{"type", "Sequence"}, {"normalizers", std::vector<json>(12, step)}};
  const Tokenizer tokenizer = make_tokenizer(file);
  try {
    tokenizer.encode("a");
    ADD_FAILURE() << "expected an error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kTokenizer);
    EXPECT_THAT(e.what(), HasSubstr("grows a text"));
  }
}

class TokenizerLoadTest : public testing::Test {
 protected:
  TokenizerLoadTest()
      : dir_(std::filesystem::temp_directory_path() /
             ("nibble_tokenizer_" + std::to_string(getpid()))) {
    std::filesystem::create_directories(dir_);
    write("tokenizer.json", tiny_byte_level().dump());
  }
  ~TokenizerLoadTest() override { std::filesystem::remove_all(dir_); }
  void write(const char* name, const std::string& text) { std::ofstream(dir_ / name) << text; }

  std::filesystem::path dir_;
};

TEST_F(TokenizerLoadTest, BosAndEosInBothSpellings) {
  EXPECT_EQ(Tokenizer::load(dir_).bos_id(), std::nullopt);
  write("tokenizer_config.json", R"({"bos_token": null, "eos_token": "<|end|>"})");
  EXPECT_EQ(Tokenizer::load(dir_).bos_id(), std::nullopt);
  EXPECT_EQ(Tokenizer::load(dir_).eos_id(), 0);
  write("tokenizer_config.json", R"({"bos_token": {"content": "<think>", "lstrip": false}})");
  EXPECT_EQ(Tokenizer::load(dir_).bos_id(), 13);
}

TEST_F(TokenizerLoadTest, NamesTheFileInErrors) {
  const auto message = [&] {
    try {
      Tokenizer::load(dir_);
    } catch (const Error& e) {
      return std::string(to_string(e.code())) + " " + e.what();
    }
    return std::string();
  };
  write("tokenizer_config.json", R"({"eos_token": "<nope>"})");
  EXPECT_THAT(message(), HasSubstr("tokenizer_config.json: eos_token: \"<nope>\""));
  write("tokenizer_config.json", R"({"eos_token": 3})");
  EXPECT_THAT(message(), HasSubstr("eos_token: expected a string"));
  write("tokenizer_config.json", "[]");
  EXPECT_THAT(message(), HasSubstr("expected an object"));
  std::filesystem::remove(dir_ / "tokenizer.json");
  EXPECT_THAT(message(), testing::StartsWith("io "));
  EXPECT_THAT(message(), HasSubstr("tokenizer.json"));
}

}  // namespace
}  // namespace nibble
