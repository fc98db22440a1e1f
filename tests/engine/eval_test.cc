#include "nibble/eval.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "nibble/error.h"
#include "tests/engine/tiny_model.h"

namespace nibble {
namespace {

std::vector<int32_t> text(int length) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < length; ++i) tokens.push_back((i * 29 + i * i * 5) % TinyModel::kVocab);
  return tokens;
}

// Natural logarithms of the softmax.
std::vector<double> log_softmax(std::span<const float> logits) {
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
  std::vector<double> out;
  for (const float logit : logits) out.push_back(logit - std::log(sum));
  return out;
}

TEST(Evaluate, IsTheMeanOverNextTokens) {
  const TinyModel model("eval");
  Engine engine = Engine::load(model.dir(), Device::cpu(1));
  const std::vector<int32_t> tokens = text(30);
  double nll = 0.0;
  for (size_t i = 0; i + 1 < tokens.size(); ++i) {
    nll -= log_softmax(engine.forward({&tokens[i], 1}))[tokens[i + 1]];
  }
  const EvalResult result = evaluate(engine, tokens);
  EXPECT_EQ(result.tokens, 29);
  EXPECT_NEAR(result.mean_nll, nll / 29, 1e-5);
  EXPECT_NEAR(result.perplexity, std::exp(nll / 29), 1e-3);
  EXPECT_FALSE(result.kl.has_value());
  EXPECT_FALSE(result.top1.has_value());
  EXPECT_EQ(engine.length(), 0);
}

TEST(Evaluate, LongTextsAreCutIntoWindowsOfTheContext) {
  const TinyModel model("eval");
  Engine engine = Engine::load(model.dir(), Device::cpu(1));
  const std::vector<int32_t> tokens = text(TinyModel::kContext * 2 + 10);
  double nll = 0.0;
  for (size_t i = 0; i + 1 < tokens.size(); ++i) {
    if (i % TinyModel::kContext == 0) engine.truncate(0);
    nll -= log_softmax(engine.forward({&tokens[i], 1}))[tokens[i + 1]];
  }
  int64_t reported = 0;
  const EvalResult result = evaluate(engine, tokens, nullptr, [&](int64_t done, int64_t total) {
    EXPECT_GT(done, reported);
    EXPECT_EQ(total, static_cast<int64_t>(tokens.size()) - 1);
    reported = done;
  });
  EXPECT_EQ(reported, static_cast<int64_t>(tokens.size()) - 1);
  EXPECT_EQ(result.tokens, reported);
  EXPECT_NEAR(result.mean_nll, nll / static_cast<double>(result.tokens), 1e-5);
}

TEST(Evaluate, ComparesWithAnotherModel) {
  const TinyModel model("eval");
  const TinyModel other("other", 2);
  Engine engine = Engine::load(model.dir(), Device::cpu(1));
  Engine against = Engine::load(other.dir(), Device::cpu(1));
  const std::vector<int32_t> tokens = text(20);
  double kl = 0.0;
  int same = 0;
  for (size_t i = 0; i + 1 < tokens.size(); ++i) {
    const std::vector<double> q = log_softmax(engine.forward({&tokens[i], 1}));
    const std::vector<double> p = log_softmax(against.forward({&tokens[i], 1}));
    for (size_t v = 0; v < p.size(); ++v) kl += std::exp(p[v]) * (p[v] - q[v]);
    same += std::max_element(p.begin(), p.end()) - p.begin() ==
            std::max_element(q.begin(), q.end()) - q.begin();
  }
  const EvalResult result = evaluate(engine, tokens, &against);
  EXPECT_NEAR(result.kl.value(), kl / 19, 1e-5);
  EXPECT_DOUBLE_EQ(result.top1.value(), same / 19.0);
  EXPECT_GT(result.kl.value(), 0.1);

  Engine twin = Engine::load(model.dir(), Device::cpu(1));
  const EvalResult equal = evaluate(engine, tokens, &twin);
  EXPECT_NEAR(equal.kl.value(), 0.0, 1e-12);
  EXPECT_EQ(equal.top1.value(), 1.0);
}

TEST(Evaluate, RefusesWhatHasNoMeaning) {
  const TinyModel model("eval");
  const TinyModel smaller("smaller", 1, 32);
  Engine engine = Engine::load(model.dir(), Device::cpu(1));
  Engine against = Engine::load(smaller.dir(), Device::cpu(1));
  const auto expect_refused = [&](const std::vector<int32_t>& tokens, Engine* other) {
    try {
      evaluate(engine, tokens, other);
      ADD_FAILURE();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument) << e.what();
    }
  };
  expect_refused({3}, nullptr);
  expect_refused({3, TinyModel::kVocab}, nullptr);
  expect_refused({3, -1}, nullptr);
  expect_refused({3, 4}, &against);
  expect_refused({3, 4}, &engine);
}

}  // namespace
}  // namespace nibble
