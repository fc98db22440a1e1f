// Answers tokenizer_oracle_test.py over stdin and stdout; integers are little-endian, 32 bits.
//   tokenizer_driver TOKENIZER_JSON
// 'e' flags length bytes -> n ids                          flags: 1 add_special, 2 parse_special
// 'd' skip n ids         -> length bytes, length bytes     decode(), then all of a Detokenizer
#include <cstdio>
#include <fstream>
#include <iterator>

#include "nibble/error.h"
#include "nibble/tokenizer.h"
#include "text/utf8.h"

namespace {

bool read_bytes(void* to, size_t n) { return std::fread(to, 1, n, stdin) == n; }

uint32_t read_u32() {
  uint32_t n = 0;
  if (!read_bytes(&n, sizeof n)) throw std::runtime_error("the request ends early");
  return n;
}

void write(const void* data, size_t count, size_t size) {
  const auto n = static_cast<uint32_t>(count);
  std::fwrite(&n, sizeof n, 1, stdout);
  std::fwrite(data, size, count, stdout);
}

void encode(const nibble::Tokenizer& tokenizer) {
  const uint32_t flags = read_u32();
  std::string text(read_u32(), '\0');
  if (!read_bytes(text.data(), text.size())) throw std::runtime_error("the request ends early");
  const auto ids = tokenizer.encode(
      text, {.add_special_tokens = (flags & 1) != 0, .parse_special = (flags & 2) != 0});
  write(ids.data(), ids.size(), sizeof ids[0]);
}

void decode(const nibble::Tokenizer& tokenizer) {
  const bool skip = read_u32() != 0;
  std::vector<int32_t> ids(read_u32());
  if (!read_bytes(ids.data(), ids.size() * sizeof ids[0])) {
    throw std::runtime_error("the request ends early");
  }
  const std::string whole = tokenizer.decode(ids, skip);
  write(whole.data(), whole.size(), 1);
  nibble::Detokenizer detokenizer(tokenizer, skip);
  std::string pieces;
  const auto add = [&](const std::string& piece) {
    if (!nibble::utf8::is_valid(piece)) throw std::runtime_error("a broken character was emitted");
    pieces += piece;
  };
  for (const int32_t id : ids) add(detokenizer.push(id));
  add(detokenizer.finish());
  write(pieces.data(), pieces.size(), 1);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  try {
    std::ifstream file(argv[1], std::ios::binary);
    const std::string json((std::istreambuf_iterator<char>(file)), {});
    const auto tokenizer = nibble::Tokenizer::from_json(json, argv[1]);
    for (char op = 0; read_bytes(&op, 1);) {
      op == 'e' ? encode(tokenizer) : decode(tokenizer);
    }
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  return 0;
}
