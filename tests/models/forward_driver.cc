// Runs a checkpoint for tests/models/forward_test.py.
//   forward_driver DIR THREADS logits OUT ID...   logits after each token, as binary fp32 in file
//   OUT forward_driver DIR THREADS generate N ID...   N greedy tokens after the prompt, stop tokens
//   included forward_driver DIR THREADS nll ID...          mean negative log-likelihood of the text
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/engine.h"
#include "nibble/error.h"
#include "nibble/eval.h"

namespace {

std::vector<int32_t> parse_ids(char** begin, char** end) {
  std::vector<int32_t> ids;
  for (char** arg = begin; arg != end; ++arg) ids.push_back(std::atoi(*arg));
  return ids;
}

void write_logits(nibble::Engine& engine, const char* path, const std::vector<int32_t>& ids) {
  std::ofstream out(path, std::ios::binary);
  engine.forward_each(ids, [&](int64_t, std::span<const float> logits) {
    out.write(reinterpret_cast<const char*>(logits.data()),
              static_cast<std::streamsize>(logits.size_bytes()));
  });
}

// Engine::generate stops at the model's stop tokens, where the comparison would end early.
void print_greedy(nibble::Engine& engine, int64_t count, const std::vector<int32_t>& ids) {
  std::span<const float> logits = engine.forward(ids);
  for (int64_t i = 0; i < count; ++i) {
    const int32_t next =
        static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    fmt::print("{} ", next);
    logits = engine.forward({&next, 1});
  }
  fmt::print("\n");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  const std::string_view command = argv[3];
  try {
    nibble::Engine engine = nibble::Engine::load(argv[1], nibble::Device::cpu(std::atoi(argv[2])),
                                                 {.activation = nibble::ActivationMode::k16Bit});
    if (command == "logits") {
      write_logits(engine, argv[4], parse_ids(argv + 5, argv + argc));
    } else if (command == "generate") {
      print_greedy(engine, std::atoi(argv[4]), parse_ids(argv + 5, argv + argc));
    } else if (command == "nll") {
      fmt::print("{:.9g}\n", evaluate(engine, parse_ids(argv + 4, argv + argc)).mean_nll);
    } else {
      return 2;
    }
  } catch (const nibble::Error& e) {
    fmt::print(stderr, "{}: {}\n", nibble::to_string(e.code()), e.what());
    return 1;
  }
  return 0;
}
