// Chat templates: a conversation becomes the prompt text a model was trained on.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace nibble {

struct ChatMessage {
  std::string role;     // "system", "user", "assistant", ...
  std::string content;  // UTF-8
};

// A Jinja2 chat template as Hugging Face checkpoints carry them, rendered as transformers renders
// it (trim_blocks and lstrip_blocks on, raise_exception, strftime_now, tojson without escapes).
// What the template language has and Nibble has not is refused by name with kTemplate. Immutable;
// safe to use from several threads.
class ChatTemplate {
 public:
  // Throws kTemplate with "source_name:line" and the thing that is unknown or malformed.
  static ChatTemplate parse(std::string_view source, std::string_view source_name);

  // Reads chat_template.jinja, else "chat_template" of tokenizer_config.json (a string, or a list
  // of {name, template}, of which "default" is taken). The special tokens of tokenizer_config.json
  // and special_tokens_map.json (bos_token, eos_token, ...) become variables. nullopt where the
  // model has no template. Throws kTokenizer for malformed JSON files, kTemplate as parse() does.
  static std::optional<ChatTemplate> load(const std::filesystem::path& model_dir);

  struct Options {
    bool add_generation_prompt = true;
    std::string extra_json;  // an object merged into the variables: tools, enable_thinking, ...
  };

  // Throws kTemplate where the template raises an exception, uses a value wrongly or exceeds a
  // bound (64 MiB of text, 2 million steps); kInvalidArgument where a message is not UTF-8 or
  // extra_json is not a JSON object.
  std::string render(std::span<const ChatMessage> messages, const Options& options) const;
  std::string render(std::span<const ChatMessage> messages) const { return render(messages, {}); }

  // Full control over the variables: an object with "messages", "tools", "add_generation_prompt",
  // ... "tools" and "documents" are none unless given, as in transformers.
  std::string render_json(std::string_view variables_json) const;

 private:
  struct Impl;
  explicit ChatTemplate(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const Impl> impl_;
};

}  // namespace nibble
