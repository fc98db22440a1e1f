#include "models/registry.h"

#include <fmt/ranges.h>

#include <vector>

#include "base/check.h"
#include "models/llama.h"
#include "models/qwen3.h"

namespace nibble {

std::span<const Architecture* const> architectures() {
  static constexpr const Architecture* kTable[] = {
      &kLlama,
      &kQwen3,
  };
  return kTable;
}

const Architecture& find_architecture(std::string_view name) {
  std::vector<std::string_view> known;
  for (const Architecture* architecture : architectures()) {
    if (architecture->name == name) return *architecture;
    known.push_back(architecture->name);
  }
  fail(ErrorCode::kUnsupported, "architecture '{}' is not supported (known: {})", name,
       fmt::join(known, ", "));
}

}  // namespace nibble
