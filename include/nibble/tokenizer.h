// Text to token ids and back, from a Hugging Face tokenizer.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nibble {

// A BPE tokenizer: byte-level (GPT-2, SmolLM2, Llama 3, Qwen) or SentencePiece-style with byte
// fallback (Llama 2). Ids are those of PyPI's `tokenizers`. Immutable and thread-safe; copies share
// their state.
class Tokenizer {
 public:
  // Reads tokenizer.json and, where there is one, tokenizer_config.json (bos and eos token) in
  // `model_dir`. Throws kIo where tokenizer.json can't be read, kTokenizer where a file is
  // malformed or uses a component that Nibble does not know; the message names both.
  static Tokenizer load(const std::filesystem::path& model_dir);

  // The same from memory, without bos and eos; `source_name` stands for the file in messages.
  static Tokenizer from_json(std::string_view tokenizer_json, std::string_view source_name);

  struct EncodeOptions {
    bool add_special_tokens = true;  // run the post-processor's template, which may add bos or eos
    bool parse_special = true;  // "<|im_end|>" in the text becomes its id, not plain characters
  };
  // Bytes that are not UTF-8 count as U+FFFD, one per maximal invalid subpart. Throws kTokenizer
  // where a pattern of the tokenizer gives up on the text.
  std::vector<int32_t> encode(std::string_view utf8, EncodeOptions options) const;
  std::vector<int32_t> encode(std::string_view utf8) const { return encode(utf8, EncodeOptions()); }

  // Valid UTF-8. Ids that no token has are skipped: models pad their embedding beyond the
  // vocabulary.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens = true) const;

  // The largest id plus one.
  int32_t vocab_size() const;
  std::optional<int32_t> token_to_id(std::string_view token) const;
  // The token as tokenizer.json spells it ("Ġhello"); empty where no token has this id.
  std::string id_to_token(int32_t id) const;
  bool is_special(int32_t id) const;
  // From tokenizer_config.json; nothing where it names none.
  std::optional<int32_t> bos_id() const;
  std::optional<int32_t> eos_id() const;

 private:
  friend class Detokenizer;
  struct Impl;
  explicit Tokenizer(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const Impl> impl_;
};

// Turns one sequence's ids into text as they come. All that push() and finish() return, put
// together, is Tokenizer::decode() of all the ids.
class Detokenizer {
 public:
  explicit Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens = true);
  ~Detokenizer();
  Detokenizer(Detokenizer&&) noexcept;
  Detokenizer& operator=(Detokenizer&&) noexcept;

  // The text that became certain with this id: whole UTF-8 characters, maybe none.
  std::string push(int32_t id);
  // What was held back; an unfinished character becomes U+FFFD. Begins a new sequence.
  std::string finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace nibble
