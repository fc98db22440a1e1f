// Tokens that are looked for in the text itself, before any word is cut: "<|im_end|>" and the like.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "text/json_view.h"
#include "text/normalizer.h"
#include "text/regex.h"
#include "text/vocab.h"

namespace nibble::text {

struct AddedToken {
  std::string content;
  std::string normalized_content;  // what matches in normalized text, and what the decoder gets
  int32_t id = 0;
  bool single_word = false, lstrip = false, rstrip = false, normalized = false, special = false;
};

// Finds the leftmost, among those the longest, of some strings.
class Trie {
 public:
  Trie() { first_.fill(kNone); }
  bool empty() const { return nodes_.empty(); }
  // False where the string is already there.
  bool add(std::string_view text, int32_t value);
  struct Match {
    size_t begin = 0, end = 0;
    int32_t value = 0;
  };
  std::optional<Match> search(std::string_view text, size_t from) const;

 private:
  static constexpr int32_t kNone = -1;
  struct Node {
    int32_t value = kNone;
    std::vector<std::pair<char, int32_t>> children;
  };
  int32_t child(int32_t node, char c) const;

  std::array<int32_t, 256> first_;
  std::vector<Node> nodes_;
};

class AddedTokens {
 public:
  // `json`: the "added_tokens" of the file. Throws kTokenizer where one is malformed, or its id is
  // not the one that `tokenizers` gives it: the vocabulary's where that has the token, else the
  // next free.
  AddedTokens(const std::optional<JsonView>& json, const Vocab& vocab,
              const Normalizer& normalizer);

  // Cuts a text into added tokens (`id` set) and what lies between them. First those that match in
  // the text as it is, then, in each normalized rest, the others.
  struct Section {
    size_t begin = 0, end = 0;
    std::optional<int32_t> id;
  };
  std::vector<Section> cut_raw(std::string_view text, bool parse_special) const;
  std::vector<Section> cut_normalized(std::string_view text, bool parse_special) const;

  const AddedToken* find(int32_t id) const;
  const AddedToken* find(std::string_view content) const;
  // True for the text of a special token.
  bool is_special(std::string_view text) const { return special_.contains(std::string(text)); }
  int32_t end_id() const { return end_id_; }

 private:
  AddedToken read(const JsonView& json) const;
  bool stands_alone(std::string_view text, const Trie::Match& match) const;
  std::vector<Section> cut(std::string_view text, const Trie& trie, bool parse_special) const;

  std::vector<AddedToken> tokens_;
  std::unordered_map<int32_t, size_t> by_id_;
  std::unordered_map<std::string, size_t> by_content_;
  std::unordered_set<std::string> special_;
  Trie raw_, normalized_;  // values: indices into tokens_
  std::optional<Regex> word_;
  int32_t end_id_ = 0;
};

}  // namespace nibble::text
