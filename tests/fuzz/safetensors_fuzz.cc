// Any bytes are a safetensors file or a nibble::Error; spans never leave the file.
#include <cstdint>
#include <cstdlib>

#include "checkpoint/safetensors.h"
#include "nibble/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    uint64_t bytes = 0;
    for (const nibble::TensorInfo& t : nibble::parse_safetensors({data, size}, "fuzz")) {
      if (t.begin < 8 || t.begin > t.end || t.end > size || t.numel() < 0) std::abort();
      bytes += t.end - t.begin;
    }
    if (bytes > size) std::abort();
  } catch (const nibble::Error&) {
  }
  return 0;
}
