// A loaded model and the text it generates, in token ids.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "nibble/device.h"

namespace nibble {

struct EngineOptions {
  std::optional<ActivationMode> activation;  // nothing: what is best on the device
  int64_t context = 0;  // positions to provide for; 0: what the model was made for
};

struct SamplingParams {
  float temperature = 0.0f;  // 0: greedy
  int64_t top_k = 0;         // 0: all
  float top_p = 1.0f;
  float min_p = 0.0f;
  uint64_t seed = 0;
};

enum class FinishReason { kLength, kStopToken, kCallback, kContextFull };

struct GenerateResult {
  std::vector<int32_t> tokens;  // new ones, the stop token not among them
  FinishReason finish = FinishReason::kLength;
  double prompt_seconds = 0.0;  // to the first token's logits
  double decode_seconds = 0.0;  // from there to the last token
  int64_t prompt_tokens = 0;    // that were computed (a kept prefix is not)
};

// One model with one sequence in its KV cache. Not thread-safe.
class Engine {
 public:
  // Throws kCheckpoint, kIo, kUnsupported.
  static Engine load(const std::filesystem::path& dir, const Device& device,
                     const EngineOptions& options = {});
  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;
  ~Engine();

  int64_t vocab_size() const;
  int64_t context_length() const;
  std::span<const int32_t> stop_tokens() const;  // eos ids of generation_config.json / config.json

  size_t matrix_bytes() const;  // of weights that each decoded token reads

  int64_t length() const;         // tokens in the cache
  void truncate(int64_t length);  // forgets the tokens behind; 0 starts anew

  // Appends tokens and returns the logits [vocab_size] after the last one, valid until the next
  // call. Throws kContextFull before anything is computed where they do not fit; kInvalidArgument
  // for an id outside the vocabulary or no tokens.
  std::span<const float> forward(std::span<const int32_t> tokens);

  // The same, with the logits after every token: on_logits(i, logits [vocab_size]), in order.
  void forward_each(std::span<const int32_t> tokens,
                    const std::function<void(int64_t, std::span<const float>)>& on_logits);

  // Generates up to max_tokens after `prompt` (whose prefix already in the cache is reused).
  // on_token(id) returns false to stop. Stops at stop_tokens() and when the context is full.
  GenerateResult generate(std::span<const int32_t> prompt, int64_t max_tokens,
                          const SamplingParams& params,
                          const std::function<bool(int32_t)>& on_token = {});

 private:
  struct State;
  explicit Engine(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace nibble
