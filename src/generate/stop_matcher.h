// Finds stop strings in text that comes in pieces.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace nibble {

class StopMatcher {
 public:
  // Empty strings are dropped: they would stop everything.
  explicit StopMatcher(std::vector<std::string> stops);

  // The text that can be shown now: everything before the first stop string, less an end that may
  // still become one.
  std::string push(std::string_view text);
  // What was held back, once no more text comes.
  std::string finish();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace nibble
