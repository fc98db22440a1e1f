#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "nibble/tokenizer.h"
#include "tests/text/tiny_tokenizers.h"
#include "text/utf8.h"

namespace nibble {
namespace {

constexpr int32_t byte_token(int b) { return 7 + b; }  // of tiny_sentencepiece()

TEST(DetokenizerTest, HoldsAnUnfinishedCharacterBack) {
  Detokenizer detokenizer(make_tokenizer(tiny_byte_level()));
  EXPECT_EQ(detokenizer.push(1), "a");
  EXPECT_EQ(detokenizer.push(5), "");
  EXPECT_EQ(detokenizer.push(6), "é");
  EXPECT_EQ(detokenizer.push(5), "");
  EXPECT_EQ(detokenizer.push(1), "\uFFFDa");
  EXPECT_EQ(detokenizer.push(5), "");
  EXPECT_EQ(detokenizer.finish(), "\uFFFD");
  EXPECT_EQ(detokenizer.finish(), "");
}

TEST(DetokenizerTest, SpecialTokensAreSkippedOrShown) {
  const Tokenizer tokenizer = make_tokenizer(tiny_byte_level());
  EXPECT_EQ(Detokenizer(tokenizer).push(0), "");
  EXPECT_EQ(Detokenizer(tokenizer, false).push(0), "<|end|>");
  EXPECT_EQ(Detokenizer(tokenizer).push(13), "<think>");
  EXPECT_EQ(Detokenizer(tokenizer).push(99), "");
}

TEST(DetokenizerTest, ASkippedTokenDoesNotBreakACharacter) {
  Detokenizer detokenizer(make_tokenizer(tiny_byte_level()));
  EXPECT_EQ(detokenizer.push(5), "");
  EXPECT_EQ(detokenizer.push(0), "");
  EXPECT_EQ(detokenizer.push(6), "é");
}

TEST(DetokenizerTest, StripsOneSpaceOfTheWholeText) {
  Detokenizer detokenizer(make_tokenizer(tiny_sentencepiece()));
  EXPECT_EQ(detokenizer.push(6), "ab");
  EXPECT_EQ(detokenizer.push(6), " ab");
  EXPECT_EQ(detokenizer.finish(), "");
  EXPECT_EQ(detokenizer.push(2), "");  // a new sequence
  EXPECT_EQ(detokenizer.push(2), " ");
}

// A byte that turns out broken breaks all the bytes in its row, so none is certain before the row
// ends.
TEST(DetokenizerTest, HoldsRowsOfFallbackBytes) {
  Detokenizer detokenizer(make_tokenizer(tiny_sentencepiece()));
  EXPECT_EQ(detokenizer.push(byte_token(0xC3)), "");
  EXPECT_EQ(detokenizer.push(byte_token(0xA9)), "");
  EXPECT_EQ(detokenizer.push(3), "éa");
  EXPECT_EQ(detokenizer.push(byte_token('x')), "");
  EXPECT_EQ(detokenizer.push(byte_token(0xC3)), "");
  EXPECT_EQ(detokenizer.push(3), "\uFFFD\uFFFDa");
  EXPECT_EQ(detokenizer.push(byte_token('x')), "");
  EXPECT_EQ(detokenizer.finish(), "x");
}

TEST(DetokenizerTest, PiecesAreWholeCharactersAndGiveDecode) {
  std::mt19937 rng(5);
  for (const auto& json : {tiny_byte_level(), tiny_sentencepiece()}) {
    const Tokenizer tokenizer = make_tokenizer(json);
    std::uniform_int_distribution<int32_t> any(0, tokenizer.vocab_size() - 1);
    for (int round = 0; round < 300; ++round) {
      std::vector<int32_t> ids(1 + round % 20);
      for (auto& id : ids) id = any(rng);
      Detokenizer detokenizer(tokenizer);
      std::string text;
      for (const int32_t id : ids) {
        const std::string piece = detokenizer.push(id);
        ASSERT_TRUE(utf8::is_valid(piece));
        text += piece;
      }
      text += detokenizer.finish();
      ASSERT_EQ(text, tokenizer.decode(ids));
    }
  }
}

}  // namespace
}  // namespace nibble
