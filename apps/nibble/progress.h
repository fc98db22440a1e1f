// Progress on stderr: a bar with rate and time left on a terminal, a plain line now and then
// elsewhere.
#pragma once

#include <cstdint>
#include <string>

namespace nibble::app {

class Progress {
 public:
  // `unit` is what is counted, e.g. "GB" with unit_size 1e9; rates are in units per second.
  Progress(std::string title, std::string unit, double unit_size, bool quiet);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void update(int64_t done, int64_t total, const std::string& what = {});

 private:
  std::string title_, unit_;
  double unit_size_;
  bool quiet_, terminal_;
  double start_, last_shown_;
};

}  // namespace nibble::app
