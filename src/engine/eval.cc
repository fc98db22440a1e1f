#include "nibble/eval.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/check.h"

namespace nibble {
namespace {

// Predictions whose logits of the other model are held at a time; the vocabulary is large.
constexpr int64_t kStep = 64;

// ln sum_v exp(logits[v])
double log_sum_exp(std::span<const float> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  return largest + std::log(sum);
}

// Of the distribution p from q; `q_total` is log_sum_exp(q).
double kl_divergence(std::span<const float> p, std::span<const float> q, double q_total) {
  const double p_total = log_sum_exp(p);
  double sum = 0.0;
  for (size_t v = 0; v < p.size(); ++v) {
    const double log_p = static_cast<double>(p[v]) - p_total;
    const double log_q = static_cast<double>(q[v]) - q_total;
    sum += std::exp(log_p) * (log_p - log_q);
  }
  return sum;
}

bool same_top1(std::span<const float> a, std::span<const float> b) {
  return std::max_element(a.begin(), a.end()) - a.begin() ==
         std::max_element(b.begin(), b.end()) - b.begin();
}

void check_arguments(const Engine& model, std::span<const int32_t> tokens, const Engine* against) {
  NIBBLE_CHECK(tokens.size() >= 2, ErrorCode::kInvalidArgument,
               "a text to evaluate must have at least 2 tokens, found {}", tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    NIBBLE_CHECK(tokens[i] >= 0 && tokens[i] < model.vocab_size(), ErrorCode::kInvalidArgument,
                 "token {} is {}, the vocabulary has ids from 0 to {}", i, tokens[i],
                 model.vocab_size() - 1);
  }
  if (against == nullptr) return;
  NIBBLE_CHECK(against != &model, ErrorCode::kInvalidArgument,
               "a model can't be evaluated against the same Engine; load it twice");
  NIBBLE_CHECK(against->vocab_size() == model.vocab_size(), ErrorCode::kInvalidArgument,
               "models with vocabularies of {} and {} tokens can't be compared", model.vocab_size(),
               against->vocab_size());
}

}  // namespace

EvalResult evaluate(Engine& model, std::span<const int32_t> tokens, Engine* against,
                    const std::function<void(int64_t, int64_t)>& progress) {
  check_arguments(model, tokens, against);
  const int64_t total = static_cast<int64_t>(tokens.size()) - 1;
  const int64_t window = against ? std::min(model.context_length(), against->context_length())
                                 : model.context_length();
  const size_t vocab = static_cast<size_t>(model.vocab_size());
  std::vector<float> other(against ? static_cast<size_t>(kStep) * vocab : 0);
  double nll = 0.0;
  double kl = 0.0;
  int64_t same = 0;
  for (int64_t first = 0; first < total;) {
    if (first % window == 0) {
      model.truncate(0);
      if (against) against->truncate(0);
    }
    const int64_t count = std::min({kStep, total - first, window - first % window});
    const auto fed = tokens.subspan(static_cast<size_t>(first), static_cast<size_t>(count));
    if (against) {
      against->forward_each(fed, [&](int64_t i, std::span<const float> logits) {
        std::copy(logits.begin(), logits.end(), other.begin() + i * static_cast<int64_t>(vocab));
      });
    }
    model.forward_each(fed, [&](int64_t i, std::span<const float> logits) {
      const int32_t next = tokens[static_cast<size_t>(first + i + 1)];
      const double normalizer = log_sum_exp(logits);
      nll += normalizer - static_cast<double>(logits[static_cast<size_t>(next)]);
      if (!against) return;
      const std::span<const float> p{other.data() + static_cast<size_t>(i) * vocab, vocab};
      kl += kl_divergence(p, logits, normalizer);
      same += same_top1(p, logits);
    });
    first += count;
    if (progress) progress(first, total);
  }
  model.truncate(0);
  if (against) against->truncate(0);

  const double n = static_cast<double>(total);
  EvalResult result;
  result.tokens = total;
  result.mean_nll = nll / n;
  result.perplexity = std::exp(result.mean_nll);
  if (against) {
    result.kl = kl / n;
    result.top1 = static_cast<double>(same) / n;
  }
  return result;
}

}  // namespace nibble
