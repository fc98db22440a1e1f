#include "dispatch/chips.h"

#include <cmath>

namespace nibble {
namespace {

// NVIDIA's data sheets: SMs that are enabled, memory bandwidth, dense FP4 with fp32 sums. A table's
// "SM100" is a B200 and "SM103" a B300, "SM120" and "SM121" their only FP4 server part.
constexpr ChipSpec kChips[] = {
    {"B200", 148, 8.0, 10'000},        {"SM100", 148, 8.0, 10'000}, {"GB200", 148, 8.0, 10'000},
    {"B300", 148, 8.0, 15'000},        {"SM103", 148, 8.0, 15'000}, {"GB300", 148, 8.0, 15'000},
    {"RTX PRO 6000", 188, 1.79, 2000}, {"SM120", 188, 1.79, 2000},  {"RTX 5090", 170, 1.79, 1676},
    {"GB10", 48, 0.273, 500},          {"SM121", 48, 0.273, 500},
};

}  // namespace

const ChipSpec* find_chip(std::string_view name) {
  for (const ChipSpec& chip : kChips) {
    if (chip.name == name) return &chip;
  }
  return nullptr;
}

const ChipSpec& default_chip() { return kChips[0]; }

double chip_distance(const ChipSpec& a, const ChipSpec& b) {
  return std::abs(std::log(static_cast<double>(a.sms) / b.sms)) +
         std::abs(std::log(a.bandwidth / b.bandwidth)) +
         std::abs(std::log(a.fp4_peak / b.fp4_peak));
}

}  // namespace nibble
