// Where Nibble's messages go. The library prints nothing: without a sink, messages are dropped.
#pragma once

#include <functional>
#include <string_view>

namespace nibble {

enum class LogLevel { kTrace, kInfo, kWarning };

using LogSink = std::function<void(LogLevel, std::string_view message)>;

// Replaces the process's sink; an empty function switches logging off. Thread-safe.
void set_log_sink(LogSink sink);

}  // namespace nibble
