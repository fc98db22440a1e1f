// The normalizer of tokenizer.json: what happens to the text before it is cut into words.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "text/json_view.h"
#include "text/pattern.h"

namespace nibble::text {

enum class UnicodeForm { kNfc, kNfd, kNfkc, kNfkd };

// Valid UTF-8 in the given normalization form. Linear but for n log n in runs of combining marks.
std::string unicode_normalize(std::string text, UnicodeForm form);

class Normalizer {
 public:
  Normalizer() = default;
  // Throws kTokenizer for an unknown type.
  explicit Normalizer(const std::optional<JsonView>& json);

  // Throws kTokenizer where replacements grow the text out of proportion.
  std::string run(std::string text) const;

 private:
  struct Prepend {
    std::string text;
  };
  struct Replace {
    Pattern pattern;
    std::string by;
  };
  struct Lowercase {};
  using Step = std::variant<UnicodeForm, Prepend, Replace, Lowercase>;

  void add(const JsonView& json);

  std::vector<Step> steps_;
};

}  // namespace nibble::text
