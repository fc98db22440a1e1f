// Refuses, before anything is launched, a pointer that a kernel could not use.
#pragma once

#include <cstddef>

#include "base/check.h"
#include "base/cuda.h"
#include "ops/gemm.h"

namespace nibble::cuda {

// p must be memory of `device`, aligned to `alignment` bytes. Throws kInvalidArgument naming it.
inline void check_device_pointer(const char* op, const char* name, const void* p, size_t alignment,
                                 int device) {
  NIBBLE_CHECK(reinterpret_cast<uintptr_t>(p) % alignment == 0, ErrorCode::kInvalidArgument,
               "{}: {} must be aligned to {} bytes, found {}", op, name, alignment, p);
  const int found = device_of(p);
  NIBBLE_CHECK(found == device, ErrorCode::kInvalidArgument,
               "{}: {} must be memory of CUDA device {}, found {}", op, name, device,
               found < 0 ? std::string("host memory") : fmt::format("device {}", found));
}

// Prepared weights say where they are: asking the runtime costs 0.1 us a call.
inline void check_weight_device(const PreparedWeight& weight, int device) {
  NIBBLE_CHECK(weight.device == device, ErrorCode::kInvalidArgument,
               "gemm: b must be memory of CUDA device {}, found device {}", device, weight.device);
}

}  // namespace nibble::cuda
