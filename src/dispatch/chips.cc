#include "dispatch/chips.h"

#include <cmath>

namespace nibble {
namespace {

// SMs that are enabled, memory bandwidth, dense FP4 with fp32 sums, of NVIDIA's data sheets: "DGX
// B200", "DGX B300", "RTX PRO 6000 Blackwell Workstation Edition" (24064 cores of 128 an SM, 512
// bits of GDDR7 at 28 Gb/s), "RTX Blackwell GPU Architecture" (RTX 5090), "DGX Spark" (GB10: 6144
// cores, 256 bits of LPDDR5X). A table's "SM100" is a B200 and "SM103" a B300, "SM120" and "SM121"
// their only FP4 server part.
constexpr ChipSpec kChips[] = {
    {"B200", 100, 148, 8.0, 10'000},        {"SM100", 100, 148, 8.0, 10'000},
    {"GB200", 100, 148, 8.0, 10'000},       {"B300", 103, 148, 8.0, 15'000},
    {"SM103", 103, 148, 8.0, 15'000},       {"GB300", 103, 148, 8.0, 15'000},
    {"RTX PRO 6000", 120, 188, 1.79, 2000}, {"SM120", 120, 188, 1.79, 2000},
    {"RTX 5090", 120, 170, 1.79, 1676},     {"GB10", 121, 48, 0.273, 500},
    {"SM121", 121, 48, 0.273, 500},
};

}  // namespace

const ChipSpec* find_chip(std::string_view name) {
  for (const ChipSpec& chip : kChips) {
    if (chip.name == name) return &chip;
  }
  return nullptr;
}

DeviceInfo device_info(const ChipSpec& chip) {
  DeviceInfo info;
  info.kind = DeviceKind::kCuda;
  info.name = chip.name;
  info.sm = chip.sm;
  info.num_sms = chip.sms;
  info.bandwidth_gbps = 1000 * chip.bandwidth;
  return info;
}

const ChipSpec& default_chip() { return kChips[0]; }

double chip_distance(const ChipSpec& a, const ChipSpec& b) {
  return std::abs(std::log(static_cast<double>(a.sms) / b.sms)) +
         std::abs(std::log(a.bandwidth / b.bandwidth)) +
         std::abs(std::log(a.fp4_peak / b.fp4_peak));
}

}  // namespace nibble
