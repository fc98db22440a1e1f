#include "base/log.h"

#include <atomic>
#include <memory>
#include <mutex>

namespace nibble {
namespace {

std::mutex mutex;
std::shared_ptr<LogSink> current;  // guarded by mutex
std::atomic<bool> enabled = false;

}  // namespace

void set_log_sink(LogSink sink) {
  std::lock_guard lock(mutex);
  enabled = static_cast<bool>(sink);
  current = std::make_shared<LogSink>(std::move(sink));
}

bool log_enabled() { return enabled; }

void log_message(LogLevel level, std::string_view message) {
  std::shared_ptr<LogSink> sink;
  {
    std::lock_guard lock(mutex);
    sink = current;
  }
  if (sink && *sink) (*sink)(level, message);
}

}  // namespace nibble
