// How well a model predicts a text, and how far it is from another one.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "nibble/engine.h"

namespace nibble {

struct EvalResult {
  int64_t tokens = 0;       // predictions that were scored
  double mean_nll = 0.0;    // mean of -ln p(next token), in nats
  double perplexity = 0.0;  // exp(mean_nll)
  // Against another model, over the same predictions:
  std::optional<double> kl;    // mean of sum_v p_against(v) ln(p_against(v) / p_model(v)), in nats
  std::optional<double> top1;  // share of predictions where both have the same likeliest token
};

// Scores every token but the first given those before it. A text longer than the context is cut
// into windows of the (smaller) context length, each starting from an empty cache: window i is fed
// tokens [i*C, (i+1)*C) and scored on [i*C + 1, (i+1)*C + 1), so that every token but the first is
// scored once. Softmax, logarithms and sums are taken in double.
//
// Leaves both caches empty. `progress` gets scored and total predictions, every few dozen. Throws
// kInvalidArgument for fewer than two tokens, an id outside the vocabulary, or vocabularies of
// different sizes.
EvalResult evaluate(Engine& model, std::span<const int32_t> tokens, Engine* against = nullptr,
                    const std::function<void(int64_t, int64_t)>& progress = {});

}  // namespace nibble
