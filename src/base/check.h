// Throwing checks. NIBBLE_CHECK(cond, code, "fmt {}", args...) throws nibble::Error when cond is
// false.
#pragma once

#include <fmt/format.h>

#include <utility>

#include "nibble/error.h"

namespace nibble {

template <class... Args>
[[noreturn]] void fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace nibble

#define NIBBLE_CHECK(cond, code, ...)      \
  do {                                     \
    if (!(cond)) [[unlikely]]              \
      ::nibble::fail((code), __VA_ARGS__); \
  } while (false)

// For things only a bug in Nibble can break.
#define NIBBLE_ASSERT(cond)                                                                        \
  NIBBLE_CHECK(cond, ::nibble::ErrorCode::kInternal, "{}:{}: internal check failed: {}", __FILE__, \
               __LINE__, #cond)
