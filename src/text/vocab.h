// Tokens by text and by id.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer_file.h"

namespace nibble::text {

class Vocab {
 public:
  static constexpr int32_t kNone = -1;

  Vocab() = default;
  // Throws kTokenizer where two tokens share a text or an id, or an id is far above their number
  // (the table by id would then be as large as the file says).
  explicit Vocab(const TokenizerFile& file);

  int32_t find(std::string_view text) const;
  // Empty where no token has this id.
  std::string_view text(int32_t id) const {
    return has(id) ? view(by_id_[static_cast<size_t>(id)]) : std::string_view();
  }
  bool has(int32_t id) const {
    return id >= 0 && static_cast<size_t>(id) < by_id_.size() &&
           by_id_[static_cast<size_t>(id)].offset != kAbsent;
  }
  size_t size() const { return size_; }
  int32_t end_id() const { return static_cast<int32_t>(by_id_.size()); }

 private:
  static constexpr uint32_t kAbsent = ~0u;
  std::string_view view(TokenizerFile::Span s) const {
    return std::string_view(arena_).substr(s.offset, s.length);
  }

  size_t size_ = 0;
  std::string arena_;
  std::vector<TokenizerFile::Span> by_id_;
  std::vector<int32_t> slots_;  // open addressing, a power of two, at most half full
};

}  // namespace nibble::text
