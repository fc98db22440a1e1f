// The decoder of tokenizer.json as a stream: tokens in, text out as soon as it is certain.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/json_view.h"
#include "text/pattern.h"

namespace nibble::text {

class TokenDecoder {
 public:
  // Without a decoder, tokens are joined by spaces. Throws kTokenizer for an unknown type, and for
  // an order of stages that a stream can't follow.
  explicit TokenDecoder(const std::optional<JsonView>& json);

  // What one sequence has pending.
  struct State {
    struct Stage {
      bool started = false;
      size_t stripped = 0;
      std::string held;  // ByteLevel: an unfinished character; ByteFallback: a run of bytes
    };
    std::vector<Stage> stages;
  };
  State start() const { return {std::vector<State::Stage>(stages_.size())}; }
  // Appends to `out` what became certain; always whole characters.
  void push(State& state, std::string_view token, std::string& out) const;
  void finish(State& state, std::string& out) const;

 private:
  struct Spaces {};  // between tokens
  struct Replace {
    Pattern pattern;
    std::string by;
  };
  struct Metaspace {
    char32_t replacement = 0;
    bool drop_first = false;
  };
  struct Strip {
    char32_t content = 0;
    size_t count = 0;   // at most so many at the front ...
    bool once = false;  // ... of the whole text, or of each token
  };
  struct ByteFallback {};  // "<0x0A>" is a byte
  struct ByteLevel {};
  using Stage = std::variant<Spaces, Replace, Metaspace, Strip, ByteFallback, ByteLevel>;

  void add(const JsonView& json);
  void run(size_t stage, State& state, std::string token, std::string& out) const;
  void flush(size_t stage, State& state, std::string& out) const;

  std::vector<Stage> stages_;
  bool fused_ = false;  // while loading: the stages so far give one text instead of tokens
};

}  // namespace nibble::text
