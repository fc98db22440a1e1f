#include "nibble/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "nibble/error.h"
#include "tests/engine/tiny_model.h"

namespace nibble {
namespace {

using testing::ElementsAreArray;
using testing::FloatNear;
using testing::HasSubstr;
using testing::Pointwise;

std::vector<float> copy(std::span<const float> logits) { return {logits.begin(), logits.end()}; }

template <class Fn>
ErrorCode code_of(Fn&& fn) {
  try {
    fn();
  } catch (const Error& e) {
    return e.code();
  }
  ADD_FAILURE() << "nothing was thrown";
  return ErrorCode::kInternal;
}

class EngineTest : public testing::Test {
 protected:
  TinyModel model_{"engine"};
  Engine engine_ = Engine::load(model_.dir(), Device::cpu(1));
  const std::vector<int32_t> prompt_ = {5, 9, 33, 2, 60, 7};
};

TEST_F(EngineTest, TellsWhatTheConfigSays) {
  EXPECT_EQ(engine_.vocab_size(), TinyModel::kVocab);
  EXPECT_EQ(engine_.context_length(), TinyModel::kContext);
  EXPECT_THAT(engine_.stop_tokens(), testing::ElementsAre(1));
  EXPECT_EQ(engine_.length(), 0);
}

TEST_F(EngineTest, TokensInOneCallOrOneByOneGiveTheSameLogits) {
  const std::vector<float> together = copy(engine_.forward(prompt_));
  engine_.truncate(0);
  std::vector<float> last;
  for (const int32_t token : prompt_) last = copy(engine_.forward({&token, 1}));
  EXPECT_EQ(engine_.length(), 6);
  EXPECT_THAT(last, Pointwise(FloatNear(1e-4f), together));
}

TEST_F(EngineTest, ForwardEachYieldsEveryPrefixInOrder) {
  std::vector<std::vector<float>> each;
  engine_.forward_each(prompt_, [&](int64_t i, std::span<const float> logits) {
    EXPECT_EQ(i, static_cast<int64_t>(each.size()));
    each.push_back(copy(logits));
  });
  ASSERT_EQ(each.size(), prompt_.size());
  for (size_t n = 1; n <= prompt_.size(); ++n) {
    engine_.truncate(0);
    EXPECT_THAT(copy(engine_.forward(std::span(prompt_).first(n))),
                Pointwise(FloatNear(1e-4f), each[n - 1]));
  }
}

TEST_F(EngineTest, TruncateForgetsOnlyWhatIsBehind) {
  const std::vector<float> before = copy(engine_.forward(prompt_));
  const std::vector<int32_t> other = {11, 12, 13};
  engine_.forward(other);
  engine_.truncate(5);
  EXPECT_EQ(engine_.length(), 5);
  EXPECT_THAT(copy(engine_.forward(std::span(prompt_).last(1))),
              Pointwise(FloatNear(1e-4f), before));
  EXPECT_EQ(code_of([&] { engine_.truncate(7); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of([&] { engine_.truncate(-1); }), ErrorCode::kInvalidArgument);
}

TEST_F(EngineTest, RefusesBadTokensAndKeepsItsState) {
  engine_.forward(prompt_);
  const std::vector<int32_t> negative = {3, -1};
  const std::vector<int32_t> beyond = {TinyModel::kVocab};
  EXPECT_EQ(code_of([&] { engine_.forward(negative); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of([&] { engine_.forward(beyond); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of([&] { engine_.forward({}); }), ErrorCode::kInvalidArgument);
  const std::vector<int32_t> many(TinyModel::kContext - 5, 3);
  EXPECT_EQ(code_of([&] { engine_.forward(many); }), ErrorCode::kContextFull);
  EXPECT_EQ(engine_.length(), 6);
  engine_.forward(std::span(many).first(TinyModel::kContext - 6));
  EXPECT_EQ(engine_.length(), TinyModel::kContext);
}

TEST_F(EngineTest, GenerateIsRepeatedArgmax) {
  const GenerateResult result = engine_.generate(prompt_, 8, {});
  EXPECT_EQ(result.prompt_tokens, 6);
  engine_.truncate(0);
  std::vector<int32_t> want;
  std::vector<float> logits = copy(engine_.forward(prompt_));
  for (size_t i = 0; i < result.tokens.size(); ++i) {
    want.push_back(
        static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    logits = copy(engine_.forward({&want.back(), 1}));
  }
  EXPECT_THAT(result.tokens, ElementsAreArray(want));
  EXPECT_TRUE(result.finish == FinishReason::kStopToken || result.tokens.size() == 8);
}

TEST_F(EngineTest, GenerateReusesThePrefixInTheCache) {
  const GenerateResult first = engine_.generate(prompt_, 4, {});
  EXPECT_EQ(engine_.generate(prompt_, 4, {}).prompt_tokens, 1);
  std::vector<int32_t> longer = prompt_;
  longer.insert(longer.end(), {20, 21});
  const GenerateResult second = engine_.generate(longer, 4, {});
  EXPECT_EQ(second.prompt_tokens, 2);
  engine_.truncate(0);
  EXPECT_EQ(engine_.generate(longer, 4, {}).tokens, second.tokens);
  std::vector<int32_t> changed = prompt_;
  changed[2] = 40;
  EXPECT_EQ(engine_.generate(changed, 4, {}).prompt_tokens, 4);
  EXPECT_EQ(engine_.generate(prompt_, 4, {}).tokens, first.tokens);
}

TEST_F(EngineTest, GenerateStopsForEachReason) {
  const SamplingParams hot{
      .temperature = 1.5f, .top_k = 0, .top_p = 1.0f, .min_p = 0.0f, .seed = 4};
  EXPECT_EQ(engine_.generate(prompt_, 0, {}).tokens.size(), 0u);
  const GenerateResult called = engine_.generate(prompt_, 20, hot, [](int32_t) { return false; });
  EXPECT_EQ(called.finish, FinishReason::kCallback);
  EXPECT_EQ(called.tokens.size(), 1u);
  bool stopped = false;
  bool full = false;
  for (uint64_t seed = 0; seed < 200 && !(stopped && full); ++seed) {
    SamplingParams params = hot;
    params.seed = seed;
    const GenerateResult result = engine_.generate(prompt_, 1000, params);
    EXPECT_THAT(result.tokens, testing::Not(testing::Contains(1)));
    if (result.finish == FinishReason::kStopToken) stopped = true;
    if (result.finish == FinishReason::kContextFull) {
      full = true;
      EXPECT_EQ(engine_.length(), TinyModel::kContext);
      EXPECT_EQ(result.tokens.size(), static_cast<size_t>(TinyModel::kContext - 6 + 1));
    }
  }
  EXPECT_TRUE(stopped);
  EXPECT_TRUE(full);
}

TEST_F(EngineTest, SeedsDecideWhatIsSampled) {
  SamplingParams params{.temperature = 2.0f, .top_k = 0, .top_p = 1.0f, .min_p = 0.0f, .seed = 1};
  const std::vector<int32_t> first = engine_.generate(prompt_, 12, params).tokens;
  EXPECT_EQ(engine_.generate(prompt_, 12, params).tokens, first);
  params.seed = 2;
  EXPECT_NE(engine_.generate(prompt_, 12, params).tokens, first);
}

TEST_F(EngineTest, GenerateRefusesWhatItCannotRun) {
  const std::vector<int32_t> many(TinyModel::kContext + 1, 3);
  EXPECT_EQ(code_of([&] { engine_.generate(many, 1, {}); }), ErrorCode::kContextFull);
  EXPECT_EQ(code_of([&] { engine_.generate({}, 1, {}); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of([&] { engine_.generate(prompt_, -1, {}); }), ErrorCode::kInvalidArgument);
}

TEST(EngineLoad, ContextIsBoundedByTheModel) {
  const TinyModel model("load");
  EXPECT_EQ(
      Engine::load(model.dir(), Device::cpu(1), {.activation = {}, .context = 10}).context_length(),
      10);
  EXPECT_EQ(code_of([&] {
              Engine::load(model.dir(), Device::cpu(1),
                           {.activation = {}, .context = TinyModel::kContext + 1});
            }),
            ErrorCode::kInvalidArgument);
}

TEST(EngineLoad, NamesTheTensorThatContradictsTheConfig) {
  const TinyModel model("contradiction");
  nlohmann::json config;
  std::ifstream(model.dir() / "config.json") >> config;
  config["intermediate_size"] = 64;
  std::ofstream(model.dir() / "config.json") << config;
  try {
    Engine::load(model.dir(), Device::cpu(1));
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kCheckpoint);
    EXPECT_THAT(e.what(), HasSubstr("model.layers.0.mlp.gate_proj must be [64, 32]"));
    EXPECT_THAT(e.what(), HasSubstr("found [48, 32]"));
  }
}

}  // namespace
}  // namespace nibble
