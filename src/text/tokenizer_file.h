// Reads tokenizer.json in one pass. The vocabulary and the merges, nearly all of the file, go into
// flat arrays; a DOM of them would cost more time than the rest of the load.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "text/json_view.h"

namespace nibble::text {

struct TokenizerFile {
  struct Span {
    uint32_t offset = 0;
    uint32_t length = 0;
  };
  struct Token {
    Span text;
    uint32_t id = 0;
  };
  struct Merge {
    Span left, right;
  };

  std::string source;
  bool has_vocab = false, has_merges = false;
  std::string arena;                           // the bytes of every token and merge
  std::vector<Token> vocab;                    // model.vocab in the file's order
  std::vector<Merge> merges;                   // model.merges, best first
  std::shared_ptr<const nlohmann::json> rest;  // everything else

  std::string_view text(Span span) const {
    return std::string_view(arena).substr(span.offset, span.length);
  }
  JsonView root() const { return JsonView(*rest, source, ""); }
};

// Throws kTokenizer: not JSON, not an object, nested deeper than 32 levels, a key twice,
// model.vocab or model.merges of a wrong type.
TokenizerFile parse_tokenizer_file(std::string_view json, std::string_view source);

// A small JSON file such as tokenizer_config.json, with the same limits.
nlohmann::json parse_json(std::string_view json, std::string_view source);

}  // namespace nibble::text
