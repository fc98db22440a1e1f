#include "text/added_tokens.h"

#include <limits>

#include "text/utf8.h"

namespace nibble::text {
namespace {

// A search takes up to this many steps per byte of text.
constexpr size_t kMaxBytes = 1024;

// The White_Space property.
bool is_white_space(char32_t c) {
  return (c >= 0x9 && c <= 0xD) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

// The beginning of the character that ends at `end`.
size_t previous(std::string_view text, size_t end) {
  do --end;
  while ((static_cast<uint8_t>(text[end]) & 0xC0) == 0x80);
  return end;
}

size_t skip_space_back(std::string_view text, size_t end, size_t limit) {
  while (end > limit) {
    const size_t begin = previous(text, end);
    size_t pos = begin;
    if (!is_white_space(utf8::next(text, pos))) break;
    end = begin;
  }
  return end;
}

size_t skip_space(std::string_view text, size_t begin) {
  for (size_t pos = begin; pos < text.size(); begin = pos) {
    if (!is_white_space(utf8::next(text, pos))) break;
  }
  return begin;
}

}  // namespace

int32_t Trie::child(int32_t node, char c) const {
  for (const auto& [key, next] : nodes_[static_cast<size_t>(node)].children) {
    if (key == c) return next;
  }
  return kNone;
}

bool Trie::add(std::string_view text, int32_t value) {
  const auto new_node = [&] {
    nodes_.emplace_back();
    return static_cast<int32_t>(nodes_.size()) - 1;
  };
  int32_t& first = first_[static_cast<uint8_t>(text[0])];
  if (first == kNone) first = new_node();
  int32_t node = first;
  for (const char c : text.substr(1)) {
    int32_t next = child(node, c);
    if (next == kNone) {
      next = new_node();
      nodes_[static_cast<size_t>(node)].children.emplace_back(c, next);
    }
    node = next;
  }
  int32_t& slot = nodes_[static_cast<size_t>(node)].value;
  if (slot != kNone) return false;
  slot = value;
  return true;
}

std::optional<Trie::Match> Trie::search(std::string_view text, size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    int32_t node = first_[static_cast<uint8_t>(text[begin])];
    std::optional<Match> longest;
    for (size_t end = begin + 1; node != kNone; ++end) {
      const int32_t value = nodes_[static_cast<size_t>(node)].value;
      if (value != kNone) longest = Match{begin, end, value};
      node = end < text.size() ? child(node, text[end]) : kNone;
    }
    if (longest) return longest;
  }
  return std::nullopt;
}

AddedToken AddedTokens::read(const JsonView& json) const {
  AddedToken token;
  token.content = json.at("content").string();
  token.id =
      static_cast<int32_t>(json.at("id").unsigned_integer(std::numeric_limits<int32_t>::max() - 1));
  token.single_word = json.at("single_word").boolean();
  token.lstrip = json.at("lstrip").boolean();
  token.rstrip = json.at("rstrip").boolean();
  token.normalized = json.at("normalized").boolean();
  token.special = json.at("special").boolean();
  if (token.content.empty()) json.fail("content is empty");
  return token;
}

AddedTokens::AddedTokens(const std::optional<JsonView>& json, const Vocab& vocab,
                         const Normalizer& normalizer) {
  if (!json) return;
  auto next_id = static_cast<int32_t>(vocab.size());
  for (const JsonView& item : json->items()) {
    AddedToken token = read(item);
    if (by_content_.contains(token.content)) item.fail("\"{}\" appears twice", token.content);
    const int32_t known = vocab.find(token.content);
    const int32_t expected = known != Vocab::kNone ? known : next_id++;
    if (token.id != expected) {
      item.fail("\"{}\" has id {}, expected {}, {}", token.content, token.id, expected,
                known != Vocab::kNone ? "which the vocabulary gives it" : "the next free one");
    }
    if (known == Vocab::kNone && vocab.has(token.id)) {
      item.fail("\"{}\" has id {}, which is the id of \"{}\"", token.content, token.id,
                vocab.text(token.id));
    }
    token.normalized_content = token.normalized ? normalizer.run(token.content) : token.content;
    const std::string& pattern = token.normalized_content;
    if (pattern.empty() || pattern.size() > kMaxBytes) {
      item.fail("the token has {} bytes, expected 1 to {}", pattern.size(), kMaxBytes);
    }
    const auto index = tokens_.size();
    if (!(token.normalized ? normalized_ : raw_).add(pattern, static_cast<int32_t>(index))) {
      item.fail("\"{}\" matches the same text as another token", token.content);
    }
    by_id_.emplace(token.id, index);
    by_content_.emplace(token.content, index);
    if (token.special) special_.insert(token.content);
    if (token.single_word && !word_) word_.emplace(fmt::format("[{}]", kRustWord), item.where());
    end_id_ = std::max(end_id_, token.id + 1);
    tokens_.push_back(std::move(token));
  }
}

const AddedToken* AddedTokens::find(int32_t id) const {
  const auto it = by_id_.find(id);
  return it != by_id_.end() ? &tokens_[it->second] : nullptr;
}

const AddedToken* AddedTokens::find(std::string_view content) const {
  const auto it = by_content_.find(std::string(content));
  return it != by_content_.end() ? &tokens_[it->second] : nullptr;
}

bool AddedTokens::stands_alone(std::string_view text, const Trie::Match& match) const {
  const auto is_word = [&](size_t begin, size_t end) {
    return word_->search(text.substr(begin, end - begin), 0).has_value();
  };
  if (match.begin > 0 && is_word(previous(text, match.begin), match.begin)) return false;
  size_t behind = match.end;
  if (behind < text.size()) utf8::next(text, behind);
  return behind == match.end || !is_word(match.end, behind);
}

std::vector<AddedTokens::Section> AddedTokens::cut(std::string_view text, const Trie& trie,
                                                   bool parse_special) const {
  std::vector<Section> sections;
  size_t done = 0;
  std::optional<Trie::Match> match;
  if (!trie.empty()) match = trie.search(text, 0);
  for (; match; match = trie.search(text, match->end)) {
    const AddedToken& token = tokens_[static_cast<size_t>(match->value)];
    if (!parse_special && token.special) continue;
    if (token.single_word && !stands_alone(text, *match)) continue;
    size_t begin = match->begin;
    // Spaces that a token to the left has already taken are not taken twice.
    if (token.lstrip) begin = skip_space_back(text, begin, done);
    if (done < begin) sections.push_back({done, begin, std::nullopt});
    done = token.rstrip ? skip_space(text, match->end) : match->end;
    sections.push_back({begin, done, token.id});
  }
  if (done < text.size()) sections.push_back({done, text.size(), std::nullopt});
  return sections;
}

std::vector<AddedTokens::Section> AddedTokens::cut_raw(std::string_view text,
                                                       bool parse_special) const {
  return cut(text, raw_, parse_special);
}

std::vector<AddedTokens::Section> AddedTokens::cut_normalized(std::string_view text,
                                                              bool parse_special) const {
  return cut(text, normalized_, parse_special);
}

}  // namespace nibble::text
