// tokenizer.json from anyone: loads or throws nibble::Error, and what loads can encode and decode.
#include <cstdlib>

#include "nibble/error.h"
#include "nibble/tokenizer.h"
#include "text/utf8.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr std::string_view kText =
      "Hello, wörld! It's 12345  <|im_start|>\n\n\tif (x) { 你好 } e\u0301 \U0001F600 \xF0\x9F ab "
      "abc";
  try {
    const auto tokenizer =
        nibble::Tokenizer::from_json({reinterpret_cast<const char*>(data), size}, "fuzz");
    const std::vector<int32_t> ids = tokenizer.encode(kText);
    for (const int32_t id : ids) {
      if (id < 0 || id >= tokenizer.vocab_size()) std::abort();
    }
    nibble::Detokenizer detokenizer(tokenizer);
    std::string pieces;
    for (const int32_t id : ids) {
      const std::string piece = detokenizer.push(id);
      if (!nibble::utf8::is_valid(piece)) std::abort();
      pieces += piece;
    }
    if (pieces + detokenizer.finish() != tokenizer.decode(ids)) std::abort();
  } catch (const nibble::Error&) {
  }
  return 0;
}
