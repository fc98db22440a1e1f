#include "nibble/text_generator.h"

#include <utility>

#include "base/check.h"
#include "generate/stop_matcher.h"

namespace nibble {

TextGenerator::TextGenerator(Engine engine, Tokenizer tokenizer,
                             std::optional<ChatTemplate> chat_template)
    : engine_(std::move(engine)),
      tokenizer_(std::move(tokenizer)),
      chat_template_(std::move(chat_template)) {}

TextGenerator TextGenerator::load(const std::filesystem::path& dir, const Device& device,
                                  const EngineOptions& options) {
  // The small files first: a broken tokenizer is known before gigabytes are read.
  Tokenizer tokenizer = Tokenizer::load(dir);
  std::optional<ChatTemplate> chat_template = ChatTemplate::load(dir);
  return TextGenerator(Engine::load(dir, device, options), std::move(tokenizer),
                       std::move(chat_template));
}

std::vector<int32_t> TextGenerator::raw_prompt(std::string_view text) const {
  return tokenizer_.encode(text);
}

std::vector<int32_t> TextGenerator::chat_prompt(std::span<const ChatMessage> messages) const {
  NIBBLE_CHECK(chat_template_.has_value(), ErrorCode::kTemplate,
               "the model has no chat template (tokenizer_config.json: chat_template, or "
               "chat_template.jinja)");
  // The template writes bos itself.
  return tokenizer_.encode(chat_template_->render(messages), {.add_special_tokens = false});
}

TextResult TextGenerator::generate(const TextRequest& request,
                                   const std::function<bool(std::string_view)>& on_text) {
  NIBBLE_CHECK(!request.prompt.empty(), ErrorCode::kInvalidArgument,
               "generate: the prompt has no tokens");
  const auto prompt_tokens = static_cast<int64_t>(request.prompt.size());
  const int64_t room = engine_.context_length() - prompt_tokens;
  NIBBLE_CHECK(room > 0, ErrorCode::kContextFull,
               "the prompt has {} tokens, the context {}: no room for an answer", prompt_tokens,
               engine_.context_length());

  TextResult result;
  Detokenizer detokenizer(tokenizer_);
  StopMatcher matcher(request.stop);
  bool cancelled = false;
  const auto show = [&](const std::string& text) {
    if (text.empty()) return;
    result.text += text;
    if (on_text && !on_text(text)) cancelled = true;
  };
  const GenerateResult run =
      engine_.generate(request.prompt, request.max_tokens > 0 ? request.max_tokens : room,
                       request.sampling, [&](int32_t id) {
                         show(matcher.push(detokenizer.push(id)));
                         return !matcher.stopped() && !cancelled;
                       });
  if (!matcher.stopped()) show(matcher.push(detokenizer.finish()));
  if (!matcher.stopped()) show(matcher.finish());

  if (cancelled) {
    result.finish = TextFinish::kCancelled;
  } else if (run.finish == FinishReason::kContextFull) {
    result.finish = TextFinish::kContextFull;
  } else if (run.finish == FinishReason::kLength && !matcher.stopped()) {
    result.finish = request.max_tokens > 0 ? TextFinish::kLength : TextFinish::kContextFull;
  }
  result.prompt_tokens = prompt_tokens;
  result.computed_tokens = run.prompt_tokens;
  result.generated_tokens = static_cast<int64_t>(run.tokens.size());
  result.prompt_seconds = run.prompt_seconds;
  result.decode_seconds = run.decode_seconds;
  return result;
}

}  // namespace nibble
