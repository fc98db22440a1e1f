// The environment variables that Nibble reads: NIBBLE_FORCE_IMPL, NIBBLE_VERBOSE, NIBBLE_CACHE_DIR,
// NIBBLE_CUBLASLT, NIBBLE_PLAIN_LAUNCH.
#pragma once

#include <optional>
#include <string>

namespace nibble {

// The variable's value, or nothing where it is unset or empty.
std::optional<std::string> env(const char* name);

}  // namespace nibble
