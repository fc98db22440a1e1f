#include "text/token_decoder.h"

#include <utility>

#include "text/byte_alphabet.h"
#include "text/utf8.h"

namespace nibble::text {
namespace {

constexpr size_t kMaxTokenBytes = 1 << 20;

char32_t one_char(const JsonView& json) {
  const std::string& s = json.string();
  size_t length = 0;
  const char32_t c = s.empty() ? 0 : utf8::next(s, length);
  if (s.empty() || length != s.size()) json.fail("\"{}\" is not one character", s);
  return c;
}

std::optional<uint8_t> fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) return std::nullopt;
    value = value * 16 + digit;
  }
  return static_cast<uint8_t>(value);
}

// Bytes in a row are text together or not at all: `tokenizers` gives a U+FFFD for each then.
std::string fallback_text(const std::string& bytes) {
  if (utf8::is_valid(bytes)) return bytes;
  std::string out;
  for (size_t i = 0; i < bytes.size(); ++i) out += utf8::kReplacement;
  return out;
}

}  // namespace

TokenDecoder::TokenDecoder(const std::optional<JsonView>& json) {
  if (json) {
    add(*json);
  } else {
    stages_.emplace_back(Spaces{});
  }
}

void TokenDecoder::add(const JsonView& json) {
  const std::string& type = json.at("type").string();
  const auto needs_tokens = [&] {
    if (fused_) json.fail("{} behind a stage that joins the tokens is not supported", type);
  };
  if (type == "Sequence") {
    for (const JsonView& item : json.at("decoders").items()) add(item);
  } else if (type == "Fuse") {
    fused_ = true;
  } else if (type == "ByteLevel") {
    needs_tokens();
    stages_.emplace_back(ByteLevel{});
    fused_ = true;
  } else if (type == "ByteFallback") {
    needs_tokens();
    stages_.emplace_back(ByteFallback{});
  } else if (type == "Replace") {
    needs_tokens();
    stages_.emplace_back(Replace{Pattern(json.at("pattern")), json.at("content").string()});
  } else if (type == "Metaspace") {
    needs_tokens();
    const auto scheme = json.find("prepend_scheme");
    stages_.emplace_back(
        Metaspace{one_char(json.at("replacement")), !scheme || scheme->string() != "never"});
  } else if (type == "Strip") {
    if (json.at("stop").unsigned_integer(0xFFFF) != 0) json.fail("stop above 0 is not supported");
    stages_.emplace_back(Strip{one_char(json.at("content")),
                               static_cast<size_t>(json.at("start").unsigned_integer(0xFFFF)),
                               fused_});
  } else {
    json.fail("unknown decoder \"{}\"", type);
  }
}

void TokenDecoder::run(size_t index, State& state, std::string token, std::string& out) const {
  if (index == stages_.size()) {
    out += token;
    return;
  }
  State::Stage& own = state.stages[index];
  const bool is_first = !own.started;
  own.started = true;
  const Stage& stage = stages_[index];
  if (std::holds_alternative<ByteFallback>(stage)) {
    if (const auto byte = fallback_byte(token)) {
      own.held.push_back(static_cast<char>(*byte));
      return;
    }
    if (!own.held.empty()) {
      run(index + 1, state, fallback_text(std::exchange(own.held, {})), out);
    }
  } else if (std::holds_alternative<ByteLevel>(stage)) {
    const std::string bytes = std::exchange(own.held, {}) + unspell(token);
    token.clear();
    utf8::append_valid(token, bytes, &own.held);
  } else if (std::holds_alternative<Spaces>(stage)) {
    if (!is_first) token.insert(token.begin(), ' ');
  } else if (const auto* replace = std::get_if<Replace>(&stage)) {
    token = replace->pattern.replace(token, replace->by, kMaxTokenBytes);
  } else if (const auto* metaspace = std::get_if<Metaspace>(&stage)) {
    std::string text;
    for (size_t pos = 0; pos < token.size();) {
      const char32_t c = utf8::next(token, pos);
      if (c != metaspace->replacement) {
        utf8::append(text, c);
      } else if (!is_first || !metaspace->drop_first) {
        text += ' ';
      }
    }
    token = std::move(text);
  } else {
    const Strip& strip = std::get<Strip>(stage);
    if (!strip.once) own.stripped = 0;
    size_t begin = 0;
    while (own.stripped < strip.count && begin < token.size()) {
      size_t pos = begin;
      if (utf8::next(token, pos) == strip.content) {
        begin = pos;
        ++own.stripped;
      } else {
        own.stripped = strip.count;
      }
    }
    token.erase(0, begin);
  }
  run(index + 1, state, std::move(token), out);
}

void TokenDecoder::push(State& state, std::string_view token, std::string& out) const {
  run(0, state, std::string(token), out);
}

void TokenDecoder::flush(size_t index, State& state, std::string& out) const {
  const std::string held = std::exchange(state.stages[index].held, {});
  if (held.empty()) return;
  std::string text;
  if (std::holds_alternative<ByteFallback>(stages_[index])) {
    text = fallback_text(held);
  } else {
    utf8::append_valid(text, held);
  }
  run(index + 1, state, std::move(text), out);
}

void TokenDecoder::finish(State& state, std::string& out) const {
  for (size_t i = 0; i < stages_.size(); ++i) flush(i, state, out);
  state = start();
}

}  // namespace nibble::text
