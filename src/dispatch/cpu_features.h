#pragma once

#include <string>

#include "nibble/device.h"

namespace nibble {

// What this processor and its operating system let a program use.
CpuFeatures detect_cpu_features();

// "AMD EPYC 9B45"; "CPU" where the system doesn't say.
std::string cpu_name();

}  // namespace nibble
