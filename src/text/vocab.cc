#include "text/vocab.h"

#include <bit>
#include <functional>

namespace nibble::text {

Vocab::Vocab(const TokenizerFile& file) : size_(file.vocab.size()) {
  const size_t max_ids = 4 * file.vocab.size() + (1 << 16);
  slots_.assign(std::bit_ceil(2 * file.vocab.size() + 1), kNone);
  by_id_.reserve(file.vocab.size());
  size_t bytes = 0;
  for (const auto& token : file.vocab) bytes += token.text.length;
  arena_.reserve(bytes);
  for (const auto& token : file.vocab) {
    const std::string_view text = file.text(token.text);
    NIBBLE_CHECK(token.id < max_ids, ErrorCode::kTokenizer,
                 "{}: model.vocab: the id of \"{}\" is {}, too far above the number of tokens, {}",
                 file.source, text, token.id, file.vocab.size());
    if (token.id >= by_id_.size()) by_id_.resize(token.id + 1, {kAbsent, 0});
    auto& entry = by_id_[token.id];
    NIBBLE_CHECK(entry.offset == kAbsent, ErrorCode::kTokenizer,
                 "{}: model.vocab: \"{}\" and \"{}\" have the same id, {}", file.source,
                 view(entry), text, token.id);

    size_t slot = std::hash<std::string_view>()(text) & (slots_.size() - 1);
    for (; slots_[slot] != kNone; slot = (slot + 1) & (slots_.size() - 1)) {
      NIBBLE_CHECK(view(by_id_[static_cast<size_t>(slots_[slot])]) != text, ErrorCode::kTokenizer,
                   "{}: model.vocab: \"{}\" appears twice", file.source, text);
    }
    slots_[slot] = static_cast<int32_t>(token.id);
    entry = {static_cast<uint32_t>(arena_.size()), token.text.length};
    arena_.append(text);
  }
}

int32_t Vocab::find(std::string_view text) const {
  if (slots_.empty()) return kNone;
  size_t slot = std::hash<std::string_view>()(text) & (slots_.size() - 1);
  for (; slots_[slot] != kNone; slot = (slot + 1) & (slots_.size() - 1)) {
    if (view(by_id_[static_cast<size_t>(slots_[slot])]) == text) return slots_[slot];
  }
  return kNone;
}

}  // namespace nibble::text
