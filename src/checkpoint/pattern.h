// Module paths, and the two pattern languages that quantization configs name them with.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

// "model.layers.0" -> model, layers, 0; views into `module`.
std::vector<std::string_view> split_path(std::string_view module);

// Python's fnmatch.fnmatchcase: * crosses dots, ? is one byte, [abc] and [!a-z] are sets.
bool glob_match(std::string_view pattern, std::string_view text);

class Regex {
 public:
  // `what` names the config in messages. Throws kCheckpoint for a malformed pattern.
  Regex(const std::string& pattern, std::string_view what);

  // Python's re.match: anchored at the start of the text, not at its end. Throws kCheckpoint for a
  // pattern that needs more than a bounded number of steps.
  bool match(std::string_view text) const;

 private:
  std::string pattern_;
  std::shared_ptr<const void> code_;
};

}  // namespace nibble
