#include "nibble/eval.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "nibble/commands.h"
#include "nibble/options.h"
#include "nibble/progress.h"
#include "nibble/text_generator.h"

namespace nibble::app {
namespace {

struct EvalOptions : ModelOptions {
  std::string text, against;
  std::optional<ActivationMode> against_activation;
  std::string against_impl;
  int64_t max_tokens = 0;
};

int run(const EvalOptions& options) {
  const Device device = options.device();
  const Tokenizer tokenizer = Tokenizer::load(options.model);
  std::vector<int32_t> tokens = tokenizer.encode(read_file(options.text));
  if (options.max_tokens > 0 && static_cast<int64_t>(tokens.size()) > options.max_tokens) {
    tokens.resize(options.max_tokens);
  }
  Engine model = Engine::load(options.model, device, options.engine());
  std::optional<Engine> against;
  if (!options.against.empty()) {
    EngineOptions other = options.engine();
    other.activation = options.against_activation;
    against =
        Engine::load(options.against, Device::cpu(options.threads, options.against_impl), other);
  }
  EvalResult result;
  {
    Progress progress("eval", "tokens", 1, options.json);
    result = evaluate(model, tokens, against ? &*against : nullptr,
                      [&](int64_t done, int64_t total) { progress.update(done, total); });
  }
  if (options.json) {
    nlohmann::ordered_json json = {{"mean_nll", result.mean_nll},
                                   {"perplexity", result.perplexity},
                                   {"tokens", result.tokens}};
    if (result.kl) json["kl"] = *result.kl;
    if (result.top1) json["top1"] = *result.top1;
    print_json(json);
    return 0;
  }
  fmt::print("tokens     {}\nmean NLL   {:.6f}\nperplexity {:.4f}\n", result.tokens,
             result.mean_nll, result.perplexity);
  if (result.kl) fmt::print("KL         {:.6f} (from {})\n", *result.kl, options.against);
  if (result.top1) fmt::print("same top 1 {:.2f} %\n", 100 * *result.top1);
  return 0;
}

}  // namespace

void add_eval(CLI::App& app, Command& command) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App& c = *app.add_subcommand(
      "eval", "Negative log-likelihood and perplexity of a text, or the distance from a model");
  options->add_to(c);
  c.add_option("--text", options->text, "Text file")->required();
  c.add_option("--against", options->against,
               "Another checkpoint with the same vocabulary: adds KL divergence and same-top-1");
  add_activation(c, "--against-activation", options->against_activation,
                 "The other's --activation");
  c.add_option("--against-impl", options->against_impl,
               "The other's NIBBLE_FORCE_IMPL, e.g. gemm=ref_gemm");
  c.add_option("--max-tokens", options->max_tokens, "Use the text's first tokens (0: all)")
      ->check(CLI::NonNegativeNumber);
  c.callback([options, &command] { command = [options] { return run(*options); }; });
}

}  // namespace nibble::app
