#include "nibble/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "nibble/options.h"

namespace nibble::app {
namespace {

constexpr double kTerminalInterval = 0.1;  // seconds between redraws
constexpr double kPlainInterval = 5.0;     // seconds between lines of a log
constexpr int kBarWidth = 30;

}  // namespace

Progress::Progress(std::string title, std::string unit, double unit_size, bool quiet)
    : title_(std::move(title)),
      unit_(std::move(unit)),
      unit_size_(unit_size),
      quiet_(quiet),
      terminal_(is_terminal(2)),
      start_(seconds_now()),
      last_shown_(start_) {}

Progress::~Progress() {
  if (terminal_ && !quiet_) fmt::print(stderr, "\r\033[K");  // leave the line to what comes next
}

void Progress::update(int64_t done, int64_t total, const std::string& what) {
  const double now = seconds_now();
  if (quiet_ || now - last_shown_ < (terminal_ ? kTerminalInterval : kPlainInterval)) return;
  last_shown_ = now;
  const double share = total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 0.0;
  const double rate = static_cast<double>(done) / unit_size_ / std::max(now - start_, 1e-9);
  const double left = share > 0 ? (now - start_) * (1 - share) / share : 0.0;
  const std::string numbers =
      fmt::format("{:3.0f} %  {:.2f} {}/s  {:.0f} s left", 100 * share, rate, unit_, left);
  if (terminal_) {
    const int filled = static_cast<int>(share * kBarWidth);
    fmt::print(stderr, "\r\033[K{} [{:#<{}}{:.<{}}] {}  {}", title_, "", filled, "",
               kBarWidth - filled, numbers, what.substr(0, 60));
    std::fflush(stderr);
  } else {
    fmt::print(stderr, "{} {}  {}\n", title_, numbers, what);
  }
}

}  // namespace nibble::app
