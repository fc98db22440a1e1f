// Hand-written tokenizer.json files, small enough to know every id by heart.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "nibble/tokenizer.h"

namespace nibble {

// Byte-level; ids by position. "Ġ" spells the space, "Ã" and "©" the bytes of "é".
inline nlohmann::json tiny_byte_level() {
  return nlohmann::json::parse(R"({
    "version": "1.0",
    "added_tokens": [
      {"id": 0, "content": "<|end|>", "single_word": false, "lstrip": false, "rstrip": false,
       "normalized": false, "special": true},
      {"id": 13, "content": "<think>", "single_word": false, "lstrip": false, "rstrip": false,
       "normalized": false, "special": false}],
    "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                      "use_regex": true},
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<|end|>", "type_id": 0}},
                 {"Sequence": {"id": "A", "type_id": 0}}],
      "pair": [],
      "special_tokens": {"<|end|>": {"id": "<|end|>", "ids": [0], "tokens": ["<|end|>"]}}},
    "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
                "use_regex": true},
    "model": {"type": "BPE", "dropout": null, "unk_token": null,
      "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
      "byte_fallback": false, "ignore_merges": false,
      "vocab": {"<|end|>": 0, "a": 1, "b": 2, "c": 3, "Ġ": 4, "Ã": 5, "©": 6, "ab": 7, "bc": 8,
                "abc": 9, "Ġab": 10, "Ã©": 11, "aa": 12},
      "merges": [["a", "b"], "b c", ["ab", "c"], ["Ġ", "ab"], ["Ã", "©"], ["a", "a"]]}})");
}

// Like Llama 2: "▁" for spaces, byte fallback for what the vocabulary lacks.
inline nlohmann::json tiny_sentencepiece() {
  auto json = nlohmann::json::parse(R"({
    "added_tokens": [
      {"id": 0, "content": "<unk>", "single_word": false, "lstrip": false, "rstrip": false,
       "normalized": false, "special": true},
      {"id": 1, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
       "normalized": false, "special": true}],
    "normalizer": {"type": "Sequence", "normalizers": [
      {"type": "Prepend", "prepend": "▁"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
    "decoder": {"type": "Sequence", "decoders": [
      {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
      {"type": "ByteFallback"}, {"type": "Fuse"},
      {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
      "vocab": {"<unk>": 0, "<s>": 1, "▁": 2, "a": 3, "b": 4, "ab": 5, "▁ab": 6},
      "merges": ["a b", "▁ ab"]}})");
  for (int b = 0; b < 256; ++b) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", b);
    json["model"]["vocab"][name] = 7 + b;
  }
  return json;
}

inline Tokenizer make_tokenizer(const nlohmann::json& json) {
  return Tokenizer::from_json(json.dump(), "tiny.json");
}

}  // namespace nibble
