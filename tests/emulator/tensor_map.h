// What stands in a CUtensorMap's 128 bytes here: 16-bit elements, boxes in rows of 128 bytes,
// swizzled over 128, zeros where there is no tensor.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "tests/emulator/machine.h"

namespace nibble::emulator {

struct TensorMap {
  const uint8_t* data;
  uint32_t rank;
  uint32_t box[3];  // innermost first
  uint64_t sizes[3];
  uint64_t strides[2];  // bytes, of each dimension but the innermost
};
static_assert(sizeof(TensorMap) <= 128);

inline constexpr size_t kElement = 2;

inline std::vector<uint8_t> read_box(const TensorMap& map, const int (&at)[3]) {
  const uint32_t depth = map.rank > 2 ? map.box[2] : 1;
  std::vector<uint8_t> box(size_t{map.box[0]} * map.box[1] * depth * kElement);
  uint8_t* to = box.data();
  for (uint32_t z = 0; z < depth; ++z) {
    for (uint32_t y = 0; y < map.box[1]; ++y) {
      for (uint32_t x = 0; x < map.box[0]; ++x, to += kElement) {
        const int64_t where[3] = {at[0] + int64_t{x}, at[1] + int64_t{y}, at[2] + int64_t{z}};
        bool inside = true;
        uint64_t offset = where[0] * kElement;
        for (uint32_t d = 0; d < map.rank; ++d) {
          inside &= where[d] >= 0 && where[d] < static_cast<int64_t>(map.sizes[d]);
          if (d > 0) offset += where[d] * map.strides[d - 1];
        }
        if (!inside) continue;
        const auto from = reinterpret_cast<uint64_t>(map.data) + offset;
        if (!memory().contains(from, kElement)) throw Fault("a tensor map beyond its memory");
        std::memcpy(to, reinterpret_cast<const void*>(from), kElement);
      }
    }
  }
  return box;
}

}  // namespace nibble::emulator
