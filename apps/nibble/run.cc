#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "nibble/commands.h"
#include "nibble/error.h"
#include "nibble/options.h"
#include "nibble/text_generator.h"

namespace nibble::app {
namespace {

constexpr int kInterruptedExit = 130;  // 128 + SIGINT, as shells report it

struct RunOptions : ModelOptions {
  std::string prompt, system;
  int64_t max_tokens = 512;
  SamplingParams sampling{.temperature = 0.7f, .top_k = 0, .top_p = 0.95f, .min_p = 0, .seed = 0};
  std::vector<std::string> stop;
  bool has_prompt = false, chat = false, raw = false;
};

std::string_view to_string(TextFinish finish) {
  constexpr std::string_view names[] = {"stop", "length", "context_full", "cancelled"};
  return names[static_cast<int>(finish)];
}

double rate(int64_t tokens, double seconds) {
  return seconds > 0 ? static_cast<double>(tokens) / seconds : 0.0;
}

// Sums over the turns of a session.
struct Totals {
  double load_seconds = 0.0;
  int64_t computed = 0, generated = 0, decoded = 0;
  double prompt_seconds = 0.0, decode_seconds = 0.0;

  void add(const TextResult& r) {
    computed += r.computed_tokens;
    generated += r.generated_tokens;
    decoded += r.generated_tokens > 0 ? r.generated_tokens - 1 : 0;
    prompt_seconds += r.prompt_seconds;
    decode_seconds += r.decode_seconds;
  }
  void print() const {
    fmt::print(stderr,
               "load {:.3f} s | prompt {} tokens, {:.1f} tokens/s | decode {} tokens, {:.1f} "
               "tokens/s | peak memory {:.0f} MiB\n",
               load_seconds, computed, rate(computed, prompt_seconds), generated,
               rate(decoded, decode_seconds), peak_memory_mib());
  }
};

bool print_text(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
  return !interrupted() && std::ferror(stdout) == 0;
}

TextRequest request_for(const RunOptions& options, std::vector<int32_t> prompt) {
  return {.prompt = std::move(prompt),
          .max_tokens = options.max_tokens,
          .sampling = options.sampling,
          .stop = options.stop};
}

std::vector<ChatMessage> first_messages(const RunOptions& options) {
  if (options.system.empty()) return {};
  return {{"system", options.system}};
}

int run_once(const RunOptions& options, TextGenerator& generator, Totals& totals) {
  const bool chat = options.chat || (!options.raw && generator.has_chat_template());
  std::vector<ChatMessage> messages = first_messages(options);
  messages.push_back({"user", options.prompt});
  const TextRequest request = request_for(
      options, chat ? generator.chat_prompt(messages) : generator.raw_prompt(options.prompt));
  const TextResult result =
      options.json ? generator.generate(request, [](std::string_view) { return !interrupted(); })
                   : generator.generate(request, print_text);
  totals.add(result);
  if (options.json) {
    print_json({{"text", result.text},
                {"finish", to_string(result.finish)},
                {"prompt_tokens", result.prompt_tokens},
                {"generated_tokens", result.generated_tokens},
                {"load_seconds", totals.load_seconds},
                {"prompt_seconds", result.prompt_seconds},
                {"decode_seconds", result.decode_seconds},
                {"prompt_tokens_per_second", rate(result.computed_tokens, result.prompt_seconds)},
                {"decode_tokens_per_second", rate(totals.decoded, result.decode_seconds)},
                {"peak_memory_mib", peak_memory_mib()}});
  } else {
    fmt::print("\n");
    std::fflush(stdout);
  }
  return interrupted() ? kInterruptedExit : 0;
}

// Reads turns from stdin until end of file. Ctrl-C ends an answer; at the prompt it ends the
// session.
int run_chat(const RunOptions& options, TextGenerator& generator, Totals& totals) {
  const bool terminal = is_terminal(STDIN_FILENO);
  if (terminal) {
    fmt::print(stderr, "Ctrl-C stops an answer, Ctrl-D ends the chat, /clear forgets it.\n");
  }
  std::vector<ChatMessage> messages = first_messages(options);
  std::string line;
  for (;;) {
    if (terminal) {
      fmt::print(stderr, "> ");
      std::fflush(stderr);
    }
    if (!std::getline(std::cin, line)) break;
    if (line == "/clear") {
      messages = first_messages(options);
      continue;
    }
    if (line.empty()) continue;
    messages.push_back({"user", line});
    try {
      const TextResult result =
          generator.generate(request_for(options, generator.chat_prompt(messages)), print_text);
      totals.add(result);
      messages.push_back({"assistant", result.text});
    } catch (const Error& e) {
      if (e.code() != ErrorCode::kContextFull) throw;
      messages.pop_back();
      fmt::print(stderr, "{}; /clear begins anew.", e.what());
    }
    fmt::print("\n");
    std::fflush(stdout);
    clear_interrupt();
  }
  if (terminal) fmt::print(stderr, "\n");
  return 0;
}

int run(const RunOptions& options) {
  catch_interrupts();
  Totals totals;
  const double start = seconds_now();
  TextGenerator generator = TextGenerator::load(options.model, options.device(), options.engine());
  totals.load_seconds = seconds_now() - start;
  const int code = options.has_prompt ? run_once(options, generator, totals)
                                      : run_chat(options, generator, totals);
  if (!options.json) totals.print();
  return code;
}

}  // namespace

void add_run(CLI::App& app, Command& command) {
  auto options = std::make_shared<RunOptions>();
  CLI::App& c = *app.add_subcommand("run", "Generate text; an interactive chat without -p");
  options->add_to(c);
  CLI::Option* prompt = c.add_option("-p,--prompt", options->prompt, "Prompt");
  c.add_option("--system", options->system, "System message of a chat");
  c.add_option("-n,--max-tokens", options->max_tokens,
               "Most tokens to generate (0: until the model stops or the context is full)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  c.add_option("--temp", options->sampling.temperature, "Temperature (0: the likeliest token)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  c.add_option("--top-k", options->sampling.top_k, "Keep the k likeliest tokens (0: all)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  c.add_option("--top-p", options->sampling.top_p,
               "Keep the smallest set of likeliest tokens with this probability")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  c.add_option("--min-p", options->sampling.min_p,
               "Drop tokens less likely than this share of the likeliest")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  c.add_option("--seed", options->sampling.seed, "Same seed, same text")->capture_default_str();
  c.add_option("--stop", options->stop, "End before this text (may be repeated)")
      ->allow_extra_args(false);
  CLI::Option* chat = c.add_flag("--chat", options->chat, "Use the chat template");
  c.add_flag("--raw", options->raw, "Continue the prompt as plain text")->excludes(chat);
  c.callback([options, prompt, &command] {
    options->has_prompt = prompt->count() > 0;
    if (options->json && !options->has_prompt) {
      throw CLI::ValidationError("--json", "needs a prompt (-p)");
    }
    command = [options] { return run(*options); };
  });
}

}  // namespace nibble::app
