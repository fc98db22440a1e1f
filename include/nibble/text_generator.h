// Text in, text out: an engine with its tokenizer and chat template.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/chat_template.h"
#include "nibble/engine.h"
#include "nibble/tokenizer.h"

namespace nibble {

struct TextRequest {
  std::vector<int32_t> prompt;  // see TextGenerator::raw_prompt and chat_prompt
  int64_t max_tokens = 0;       // 0: until the model stops or the context is full
  SamplingParams sampling;
  std::vector<std::string> stop;  // the text ends before the first of these
};

enum class TextFinish { kStop, kLength, kContextFull, kCancelled };

struct TextResult {
  std::string text;
  TextFinish finish = TextFinish::kStop;
  int64_t prompt_tokens = 0;     // of the whole prompt
  int64_t computed_tokens = 0;   // of the prompt, the rest was in the cache
  int64_t generated_tokens = 0;  // the stop token, if any, not among them
  double prompt_seconds = 0.0;
  double decode_seconds = 0.0;  // of all generated tokens but the first
};

class TextGenerator {
 public:
  // Loads model, tokenizer and chat template of a folder. Throws what Engine::load,
  // Tokenizer::load and ChatTemplate::load throw.
  static TextGenerator load(const std::filesystem::path& dir, const Device& device,
                            const EngineOptions& options = {});

  bool has_chat_template() const { return chat_template_.has_value(); }

  // Token ids of plain text: as the tokenizer has it, bos included where it adds one.
  std::vector<int32_t> raw_prompt(std::string_view text) const;

  // Token ids of a conversation, up to where the assistant's answer begins. Throws kTemplate where
  // the model has no template.
  std::vector<int32_t> chat_prompt(std::span<const ChatMessage> messages) const;

  // on_text gets whole UTF-8 characters as they become certain, and returns false to stop.
  // Throws kContextFull where the prompt leaves no room for a token.
  TextResult generate(const TextRequest& request,
                      const std::function<bool(std::string_view)>& on_text = {});

  Engine& engine() { return engine_; }
  const Tokenizer& tokenizer() const { return tokenizer_; }

 private:
  TextGenerator(Engine engine, Tokenizer tokenizer, std::optional<ChatTemplate> chat_template);
  Engine engine_;
  Tokenizer tokenizer_;
  std::optional<ChatTemplate> chat_template_;
};

}  // namespace nibble
