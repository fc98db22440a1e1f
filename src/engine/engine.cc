#include "nibble/engine.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <iterator>
#include <random>
#include <utility>

#include "base/check.h"
#include "base/thread_pool.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/config.h"
#include "dispatch/ops.h"
#include "models/config.h"
#include "models/model.h"
#include "nibble/gemm.h"

namespace nibble {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::vector<int32_t> read_stop_tokens(const std::filesystem::path& dir, const ModelConfig& config) {
  const std::filesystem::path file = dir / "generation_config.json";
  if (std::filesystem::exists(file)) {
    std::ifstream in(file, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(in), {}};
    NIBBLE_CHECK(in.good(), ErrorCode::kIo, "{}: can't be read", file.string());
    std::vector<int32_t> ids = parse_generation_eos(text, file);
    if (!ids.empty()) return ids;
  }
  return config.eos_ids;
}

int64_t choose_context(int64_t asked, int64_t made_for) {
  NIBBLE_CHECK(asked >= 0 && asked <= made_for, ErrorCode::kInvalidArgument,
               "context must be from 1 to the model's {} positions (0: all of them), found {}",
               made_for, asked);
  return asked == 0 ? made_for : asked;
}

}  // namespace

struct Engine::State {
  State(const Checkpoint& checkpoint, const ModelConfig& config, const Device& device,
        const EngineOptions& options)
      : context(choose_context(options.context, config.context_length)),
        model(checkpoint, config, device,
              options.activation.value_or(default_activation(
                  device.info(), !checkpoint.quant_config().quantizes_activations())),
              context),
        stop_tokens(read_stop_tokens(checkpoint.dir(), config)) {}

  void check(std::span<const int32_t> added) const;
  // Runs `added` in chunks and calls after_chunk(rows, is_last) after each; the last row of a chunk
  // gets logits, or every row.
  template <class Fn>
  void append(std::span<const int32_t> added, bool every_logits, Fn&& after_chunk);

  int64_t context;
  Model model;
  std::vector<int32_t> stop_tokens;
  std::vector<int32_t> tokens;  // whose keys and values are in the cache
};

void Engine::State::check(std::span<const int32_t> added) const {
  NIBBLE_CHECK(!added.empty(), ErrorCode::kInvalidArgument, "no tokens to run");
  const int64_t vocab = model.config().vocab_size;
  for (size_t i = 0; i < added.size(); ++i) {
    NIBBLE_CHECK(added[i] >= 0 && added[i] < vocab, ErrorCode::kInvalidArgument,
                 "token {} is {}, the vocabulary has ids from 0 to {}", i, added[i], vocab - 1);
  }
  const int64_t room = context - static_cast<int64_t>(tokens.size());
  NIBBLE_CHECK(static_cast<int64_t>(added.size()) <= room, ErrorCode::kContextFull,
               "{} tokens do not fit behind {} in a context of {}", added.size(), tokens.size(),
               context);
}

template <class Fn>
void Engine::State::append(std::span<const int32_t> added, bool every_logits, Fn&& after_chunk) {
  check(added);
  const ThreadPool::Active active(model.device().pool());
  while (!added.empty()) {
    const std::span<const int32_t> chunk =
        added.first(std::min<size_t>(added.size(), Model::kMaxRows));
    const int64_t rows = static_cast<int64_t>(chunk.size());
    model.run(chunk, static_cast<int64_t>(tokens.size()), every_logits ? rows : 1);
    tokens.insert(tokens.end(), chunk.begin(), chunk.end());
    added = added.subspan(chunk.size());
    after_chunk(rows, added.empty());
  }
}

Engine::Engine(std::unique_ptr<State> state) : state_(std::move(state)) {}
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;
Engine::~Engine() = default;

Engine Engine::load(const std::filesystem::path& dir, const Device& device,
                    const EngineOptions& options) {
  const Checkpoint checkpoint = Checkpoint::open(dir);
  const ModelConfig config = parse_model_config(checkpoint.config_json(), dir / "config.json");
  return Engine(std::make_unique<State>(checkpoint, config, device, options));
}

int64_t Engine::vocab_size() const { return state_->model.config().vocab_size; }
int64_t Engine::context_length() const { return state_->context; }
std::span<const int32_t> Engine::stop_tokens() const { return state_->stop_tokens; }
size_t Engine::matrix_bytes() const { return state_->model.matrix_bytes(); }
int64_t Engine::length() const { return static_cast<int64_t>(state_->tokens.size()); }

void Engine::truncate(int64_t length) {
  NIBBLE_CHECK(length >= 0 && length <= this->length(), ErrorCode::kInvalidArgument,
               "can't truncate to {} tokens, the cache holds {}", length, this->length());
  state_->tokens.resize(static_cast<size_t>(length));
}

std::span<const float> Engine::forward(std::span<const int32_t> tokens) {
  std::span<const float> logits;
  state_->append(tokens, false, [&](int64_t rows, bool last) {
    if (last) logits = state_->model.logits(rows - 1, 1);
  });
  return logits;
}

void Engine::forward_each(std::span<const int32_t> tokens,
                          const std::function<void(int64_t, std::span<const float>)>& on_logits) {
  const size_t vocab = static_cast<size_t>(vocab_size());
  int64_t done = 0;
  state_->append(tokens, true, [&](int64_t rows, bool) {
    for (int64_t first = 0; first < rows; first += Model::kMaxLogitRows) {
      const int64_t count = std::min(Model::kMaxLogitRows, rows - first);
      const std::span<const float> logits = state_->model.logits(first, count);
      for (int64_t i = 0; i < count; ++i) {
        on_logits(done++, logits.subspan(static_cast<size_t>(i) * vocab, vocab));
      }
    }
  });
}

GenerateResult Engine::generate(std::span<const int32_t> prompt, int64_t max_tokens,
                                const SamplingParams& params,
                                const std::function<bool(int32_t)>& on_token) {
  NIBBLE_CHECK(max_tokens >= 0, ErrorCode::kInvalidArgument,
               "max_tokens must be at least 0, found {}", max_tokens);
  NIBBLE_CHECK(!prompt.empty(), ErrorCode::kInvalidArgument, "the prompt has no tokens");
  NIBBLE_CHECK(static_cast<int64_t>(prompt.size()) <= state_->context, ErrorCode::kContextFull,
               "a prompt of {} tokens does not fit in a context of {}", prompt.size(),
               state_->context);
  // The last token is always run: its logits are wanted.
  const std::vector<int32_t>& cached = state_->tokens;
  const auto reusable = prompt.first(prompt.size() - 1);
  const auto kept =
      std::mismatch(reusable.begin(), reusable.end(), cached.begin(), cached.end()).first -
      reusable.begin();
  truncate(kept);

  GenerateResult result;
  const Clock::time_point start = Clock::now();
  std::span<const float> logits = forward(prompt.subspan(static_cast<size_t>(kept)));
  result.prompt_tokens = static_cast<int64_t>(prompt.size()) - kept;
  result.prompt_seconds = seconds_since(start);

  const Clock::time_point decode_start = Clock::now();
  std::mt19937_64 random(params.seed);
  while (static_cast<int64_t>(result.tokens.size()) < max_tokens) {
    int32_t token = 0;
    sample({.desc = {.vocab = vocab_size(),
                     .temperature = params.temperature,
                     .top_k = params.top_k,
                     .top_p = params.top_p,
                     .min_p = params.min_p},
            .logits = logits.data(),
            // std::uniform_real_distribution may differ between standard libraries.
            .uniform = static_cast<double>(random() >> 11) * 0x1.0p-53,
            .token = &token},
           state_->model.device());
    if (std::find(state_->stop_tokens.begin(), state_->stop_tokens.end(), token) !=
        state_->stop_tokens.end()) {
      result.finish = FinishReason::kStopToken;
      break;
    }
    result.tokens.push_back(token);
    if (on_token && !on_token(token)) {
      result.finish = FinishReason::kCallback;
      break;
    }
    if (static_cast<int64_t>(result.tokens.size()) == max_tokens) break;
    if (length() == state_->context) {
      result.finish = FinishReason::kContextFull;
      break;
    }
    logits = forward({&token, 1});
  }
  result.decode_seconds = seconds_since(decode_start);
  return result;
}

}  // namespace nibble
