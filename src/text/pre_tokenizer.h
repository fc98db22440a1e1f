// The pre-tokenizer of tokenizer.json: cuts text into the words that BPE merges within.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/json_view.h"
#include "text/pattern.h"

namespace nibble::text {

// A text and the words in it, in order, none of them empty.
struct Words {
  struct Word {
    size_t begin = 0, end = 0;
    bool at_start = false;  // begins where the caller's text began
  };
  std::string text;
  std::vector<Word> words;

  std::string_view view(const Word& w) const {
    return std::string_view(text).substr(w.begin, w.end - w.begin);
  }
};

class PreTokenizer {
 public:
  // Throws kTokenizer for an unknown type, and for ByteLevel elsewhere than last.
  explicit PreTokenizer(const std::optional<JsonView>& json);

  // `at_start`: the text is the beginning of what the caller encodes.
  Words run(std::string text, bool at_start) const;
  // True where the vocabulary spells bytes as in GPT-2; see byte_alphabet.h.
  bool byte_level() const { return byte_level_; }

 private:
  enum class Behavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };
  struct Split {
    Pattern pattern;
    Behavior behavior = Behavior::kIsolated;
    bool invert = false;
  };
  // Replaces spaces, then puts `mark` before words that don't begin with it.
  struct Mark {
    enum class Where { kNever, kFirst, kAlways } where = Where::kAlways;
    std::string mark;
  };
  using Stage = std::variant<Split, Mark>;

  void add(const JsonView& json);
  void add_split(const JsonView& json);
  void add_metaspace(const JsonView& json);
  static Words split(Words in, const Split& stage);
  static Words mark(const Words& in, const Mark& stage);

  std::vector<Stage> stages_;
  bool byte_level_ = false;
};

}  // namespace nibble::text
