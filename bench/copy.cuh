// Plain copies that read and write as many bytes as quantizing does: what quantizing is held
// against. A unit is 16 elements: it reads `kReads` times 16 bytes, and writes 8 bytes of codes and
// one (or half) a byte of scales; where there is `more`, 32 bytes to that as well.
#pragma once

#include <cstdint>

#include "nibble/device.h"

namespace nibble::bench {

struct CopyParams {
  const uint8_t* src;
  uint8_t* codes;
  uint8_t* scales;
  int64_t units;
  int64_t scale_bytes;
  uint8_t* more = nullptr;
};

inline constexpr int kCopyKernels = 6;
// "256 threads, 1 unit", ...
const char* copy_name(int kernel);
void launch_copy(int kernel, int bytes_per_unit, const CopyParams& params, Stream stream);

}  // namespace nibble::bench
