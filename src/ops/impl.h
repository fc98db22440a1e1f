// The contract between kernels and the dispatcher: what every implementation of every op states.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "nibble/device.h"
#include "nibble/types.h"

namespace nibble {

// Yes, or the reason why not.
struct Support {
  std::string reason;

  explicit operator bool() const { return reason.empty(); }
  static Support yes() { return {}; }
  template <class... Args>
  static Support no(fmt::format_string<Args...> format, Args&&... args) {
    return {fmt::format(format, std::forward<Args>(args)...)};
  }
};

// One way to run a kernel. Every kernel uses the fields it has; 0 means "not mine".
struct KernelConfig {
  int tile_m = 0;
  int tile_n = 0;
  int tile_k = 0;
  int stages = 0;
  int split_k = 0;
  int cluster = 0;
  int rest_m = 0;  // tiles of the last rows of D, where they are of another size
  int rest_n = 0;
  int algorithm = 0;  // of a library's, in the library's own order

  bool operator==(const KernelConfig&) const = default;
};
std::string to_string(const KernelConfig& config);  // "tile_m=64 tile_n=128"; "default" where empty

// A row-major matrix of activations: `rows` rows of `cols` elements, `stride` elements apart.
struct MatrixView {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  template <class T>
  T* row(int64_t i) const {
    return static_cast<T*>(data) + i * stride;
  }
};

// What a launch makes of the chip, for predictions: its tiles, each the work of one block of
// threads.
struct TileWork {
  int64_t tiles = 0;
  int64_t mma = 0;    // tensor core instructions of the warps of a tile
  int64_t bytes = 0;  // that a tile reads and writes outside the multiprocessor, caches included
};

// A table entry. `Args` holds a `desc` and the pointers. Optional members may be null:
// candidates (one empty config), estimate_us (the table's order decides), workspace_bytes (none),
// work (not said), load (nothing to load).
template <class Desc_, class Args_>
struct OpImpl {
  using Desc = Desc_;
  using Args = Args_;

  // "cpu_portable_gemm": symbol, file, force-switch, test filter and bench row.
  std::string_view name;
  Support (*can_implement)(const Desc&, const DeviceInfo&) = nullptr;
  // No allocation, no synchronisation: can be captured in a CUDA graph.
  void (*launch)(const Args&, const KernelConfig&, Stream) = nullptr;
  std::span<const KernelConfig> (*candidates)(const Desc&, const DeviceInfo&) = nullptr;
  double (*estimate_us)(const Desc&, const KernelConfig&, const DeviceInfo&) = nullptr;
  size_t (*workspace_bytes)(const Desc&, const KernelConfig&, const DeviceInfo&) = nullptr;
  TileWork (*work)(const Desc&, const KernelConfig&) = nullptr;  // of the largest tile
  // On a stream whose `load` is set: brings the kernels into memory, so that the first launch takes
  // no longer than the next.
  void (*load)(const Desc&, const KernelConfig&, Stream) = nullptr;
};

}  // namespace nibble
