#include "nibble/tokenizer.h"

#include <nlohmann/json.hpp>

#include "base/mapped_file.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/byte_alphabet.h"
#include "text/normalizer.h"
#include "text/post_processor.h"
#include "text/pre_tokenizer.h"
#include "text/token_decoder.h"
#include "text/tokenizer_file.h"
#include "text/utf8.h"

namespace nibble {

struct Tokenizer::Impl {
  explicit Impl(const text::TokenizerFile& file)
      : bpe(file),
        normalizer(file.root().find("normalizer")),
        pre_tokenizer(file.root().find("pre_tokenizer")),
        added(file.root().find("added_tokens"), bpe.vocab(), normalizer),
        end_id(std::max(bpe.vocab().end_id(), added.end_id())),
        post_processor(file.root().find("post_processor"), end_id),
        decoder(file.root().find("decoder")) {}

  void encode_text(std::string text, bool at_start, std::vector<int32_t>& ids) const;
  void read_config(const std::filesystem::path& path);
  std::optional<int32_t> find(std::string_view token) const;
  // What the decoder gets for an id; nothing where no token has it or it is to be skipped.
  std::optional<std::string_view> decoder_input(int32_t id, bool skip_special) const;

  text::Bpe bpe;
  text::Normalizer normalizer;
  text::PreTokenizer pre_tokenizer;
  text::AddedTokens added;
  int32_t end_id;
  text::PostProcessor post_processor;
  text::TokenDecoder decoder;
  std::optional<int32_t> bos_id, eos_id;
};

namespace {

std::string_view as_text(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

}  // namespace

void Tokenizer::Impl::encode_text(std::string text, bool at_start,
                                  std::vector<int32_t>& ids) const {
  const text::Words words = pre_tokenizer.run(std::move(text), at_start);
  std::string spelled;
  for (const auto& word : words.words) {
    std::string_view view = words.view(word);
    if (pre_tokenizer.byte_level()) {
      spelled.clear();
      text::append_spelled(spelled, view);
      view = spelled;
    }
    bpe.encode(view, ids);
  }
}

std::optional<int32_t> Tokenizer::Impl::find(std::string_view token) const {
  if (const auto* found = added.find(token)) return found->id;
  const int32_t id = bpe.vocab().find(token);
  return id != text::Vocab::kNone ? std::optional(id) : std::nullopt;
}

std::optional<std::string_view> Tokenizer::Impl::decoder_input(int32_t id,
                                                               bool skip_special) const {
  const auto* token = added.find(id);
  if (token == nullptr && !bpe.vocab().has(id)) return std::nullopt;
  const std::string_view text =
      token != nullptr ? std::string_view(token->normalized_content) : bpe.vocab().text(id);
  if (skip_special && added.is_special(text)) return std::nullopt;
  return text;
}

void Tokenizer::Impl::read_config(const std::filesystem::path& path) {
  const MappedFile file(path);
  const nlohmann::json json = text::parse_json(as_text(file), path.string());
  const text::JsonView root(json, path.string(), "");
  const auto read = [&](const char* key) -> std::optional<int32_t> {
    const auto token = root.find(key);
    if (!token) return std::nullopt;
    const std::string& content =
        token->is_object() ? token->at("content").string() : token->string();
    const auto id = find(content);
    if (!id) token->fail("\"{}\" is not a token of tokenizer.json", content);
    return id;
  };
  bos_id = read("bos_token");
  eos_id = read("eos_token");
}

Tokenizer Tokenizer::load(const std::filesystem::path& model_dir) {
  const std::filesystem::path path = model_dir / "tokenizer.json";
  const MappedFile file(path);
  auto impl = std::make_shared<Impl>(text::parse_tokenizer_file(as_text(file), path.string()));
  const std::filesystem::path config = model_dir / "tokenizer_config.json";
  if (std::filesystem::exists(config)) impl->read_config(config);
  return Tokenizer(std::move(impl));
}

Tokenizer Tokenizer::from_json(std::string_view tokenizer_json, std::string_view source_name) {
  return Tokenizer(std::make_shared<Impl>(text::parse_tokenizer_file(tokenizer_json, source_name)));
}

std::vector<int32_t> Tokenizer::encode(std::string_view utf8, EncodeOptions options) const {
  std::string valid;
  if (!utf8::is_valid(utf8)) {
    utf8::append_valid(valid, utf8);
    utf8 = valid;
  }
  std::vector<int32_t> ids;
  if (options.add_special_tokens) ids = impl_->post_processor.before;
  for (const auto& raw : impl_->added.cut_raw(utf8, options.parse_special)) {
    if (raw.id) {
      ids.push_back(*raw.id);
      continue;
    }
    const std::string normalized =
        impl_->normalizer.run(std::string(utf8.substr(raw.begin, raw.end - raw.begin)));
    for (const auto& section : impl_->added.cut_normalized(normalized, options.parse_special)) {
      if (section.id) {
        ids.push_back(*section.id);
      } else {
        impl_->encode_text(normalized.substr(section.begin, section.end - section.begin),
                           raw.begin == 0 && section.begin == 0, ids);
      }
    }
  }
  if (options.add_special_tokens) {
    const auto& after = impl_->post_processor.after;
    ids.insert(ids.end(), after.begin(), after.end());
  }
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  Detokenizer detokenizer(*this, skip_special_tokens);
  std::string text;
  for (const int32_t id : ids) text += detokenizer.push(id);
  return text + detokenizer.finish();
}

int32_t Tokenizer::vocab_size() const { return impl_->end_id; }

std::optional<int32_t> Tokenizer::token_to_id(std::string_view token) const {
  return impl_->find(token);
}

std::string Tokenizer::id_to_token(int32_t id) const {
  const auto* token = impl_->added.find(id);
  return token != nullptr ? token->content : std::string(impl_->bpe.vocab().text(id));
}

bool Tokenizer::is_special(int32_t id) const {
  const auto* token = impl_->added.find(id);
  return token != nullptr && token->special;
}

std::optional<int32_t> Tokenizer::bos_id() const { return impl_->bos_id; }
std::optional<int32_t> Tokenizer::eos_id() const { return impl_->eos_id; }

struct Detokenizer::State {
  std::shared_ptr<const Tokenizer::Impl> impl;
  bool skip_special;
  text::TokenDecoder::State decoder;
};

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens)
    : state_(new State{tokenizer.impl_, skip_special_tokens, tokenizer.impl_->decoder.start()}) {}
Detokenizer::~Detokenizer() = default;
Detokenizer::Detokenizer(Detokenizer&&) noexcept = default;
Detokenizer& Detokenizer::operator=(Detokenizer&&) noexcept = default;

std::string Detokenizer::push(int32_t id) {
  std::string out;
  if (const auto token = state_->impl->decoder_input(id, state_->skip_special)) {
    state_->impl->decoder.push(state_->decoder, *token, out);
  }
  return out;
}

std::string Detokenizer::finish() {
  std::string out;
  state_->impl->decoder.finish(state_->decoder, out);
  return out;
}

}  // namespace nibble
