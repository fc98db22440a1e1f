// The header of one safetensors file: 8 bytes of little-endian length, JSON, data.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/types.h"

namespace nibble {

struct TensorInfo {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;  // empty: a scalar
  uint64_t begin = 0;          // offsets from the start of the file
  uint64_t end = 0;

  int64_t numel() const;
};

// "[64, 32]", for messages.
std::string shape_string(std::span<const int64_t> shape);

// Tensors of a whole file in memory, in the order of their data. As strict as the format's own
// library: the data must be covered from first to last byte without overlap or hole. `what` names
// the file in messages. Throws kCheckpoint, or kUnsupported for a dtype that Nibble has no use for.
std::vector<TensorInfo> parse_safetensors(std::span<const uint8_t> file, std::string_view what);

}  // namespace nibble
