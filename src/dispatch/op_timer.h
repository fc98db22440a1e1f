// Where a pass spends its time, for whoever asked by Device::time_ops; otherwise one comparison.
#pragma once

#include <chrono>
#include <string_view>

#include "nibble/device.h"

namespace nibble {

class OpTimer {
 public:
  OpTimer(const Device& device, std::string_view op) : seconds_(device.timed_ops()), op_(op) {
    if (seconds_ != nullptr) start_ = Clock::now();
  }
  ~OpTimer() {
    if (seconds_ == nullptr) return;
    (*seconds_)[op_] += std::chrono::duration<double>(Clock::now() - start_).count();
  }
  OpTimer(const OpTimer&) = delete;
  OpTimer& operator=(const OpTimer&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  OpSeconds* seconds_;
  std::string_view op_;
  Clock::time_point start_;
};

}  // namespace nibble
