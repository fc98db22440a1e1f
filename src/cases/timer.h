// Times launches on a device: a CPU's by the clock, a CUDA device's as captured graphs between
// events, so that the host's part is not in them.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "nibble/device.h"

namespace nibble::cases {

// Launch i of a contender; i counts on, so that inputs can take turns.
using Launch = std::function<void(int64_t i)>;

struct Times {  // seconds of one launch
  double median = 0, fastest = 0, slowest = 0;
};

// All contenders in turns, forwards and backwards: a chip that was at work for a second is slower
// than one that was not, by up to 14 % on an H200. A GPU rests before each turn.
std::vector<Times> time_in_turns(const Device& device, std::span<const Launch> contenders);
Times time_one(const Device& device, const Launch& launch);

// Reads `bytes` of host memory with every thread of a CPU's pool.
Launch reading(const void* memory, size_t bytes, const Device& device);

}  // namespace nibble::cases
