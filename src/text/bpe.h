// Byte pair encoding of one word.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "text/vocab.h"

namespace nibble::text {

class Bpe {
 public:
  // Reads file.vocab, file.merges and the flags in "model". Throws kTokenizer where a merge or the
  // unknown token names a token that is not in the vocabulary, or for a model of another type.
  explicit Bpe(const TokenizerFile& file);

  const Vocab& vocab() const { return vocab_; }

  // Appends the ids of a word in the vocabulary's spelling: valid UTF-8.
  void encode(std::string_view word, std::vector<int32_t>& out) const;

 private:
  struct Merge {
    static constexpr uint64_t kEmpty = ~uint64_t{0};
    uint64_t pair = kEmpty;  // left id << 32 | right id
    uint32_t rank = 0;
    int32_t id = 0;
  };

  void read_flags(const JsonView& model);
  void add_merges(const TokenizerFile& file);
  const Merge* find(int32_t left, int32_t right) const;
  int32_t char_id(std::string_view spelled, char32_t c) const;
  std::vector<int32_t> symbols(std::string_view word) const;
  void merge_short(std::vector<int32_t>& ids) const;
  void merge_long(std::vector<int32_t>& ids) const;

  Vocab vocab_;
  std::vector<Merge> merges_;  // open addressing, a power of two, at most half full
  int merges_shift_ = 0;
  std::array<int32_t, 0x180> char_ids_{};  // of the first characters, which cover the byte alphabet
  std::array<int32_t, 256> byte_ids_{};    // of "<0x00>" ... "<0xFF>"
  int32_t unk_id_ = Vocab::kNone;
  bool fuse_unk_ = false, byte_fallback_ = false, ignore_merges_ = false;
};

}  // namespace nibble::text
