// The post-processor of tokenizer.json: the special tokens around a text.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "text/json_view.h"

namespace nibble::text {

struct PostProcessor {
  std::vector<int32_t> before, after;

  PostProcessor() = default;
  // Ids must lie below `end_id`. Throws kTokenizer for an unknown type.
  PostProcessor(const std::optional<JsonView>& json, int32_t end_id);

 private:
  void add(const JsonView& json, int32_t end_id);
  void add_template(const JsonView& json, int32_t end_id);
};

}  // namespace nibble::text
