// log(level, "fmt {}", args...): formats only where a sink is set.
#pragma once

#include <fmt/format.h>

#include <utility>

#include "nibble/log.h"

namespace nibble {

bool log_enabled();
void log_message(LogLevel level, std::string_view message);

template <class... Args>
void log(LogLevel level, fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled()) log_message(level, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace nibble
