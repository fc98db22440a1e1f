// What data sheets say of the chips that the cost model may be asked about.
#pragma once

#include <string_view>

#include "nibble/device.h"

namespace nibble {

struct ChipSpec {
  std::string_view name;
  int sm = 0;  // compute capability: 100 is 10.0
  int sms = 0;
  double bandwidth = 0;  // TB/s of device memory
  double fp4_peak = 0;   // dense TFLOP/s
};

// By the names that tables use (B200, SM100, ...), or null.
const ChipSpec* find_chip(std::string_view name);

// As Device::cuda would describe it: what implementations decide by where the chip is not there.
DeviceInfo device_info(const ChipSpec& chip);

// The chip whose constants stand for one that is not known.
const ChipSpec& default_chip();

// 0 for the same sizes; a sum of absolute log ratios otherwise.
double chip_distance(const ChipSpec& a, const ChipSpec& b);

}  // namespace nibble
