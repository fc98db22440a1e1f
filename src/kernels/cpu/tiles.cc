#include "kernels/cpu/tiles.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>

#include "base/host_arena.h"
#include "base/thread_pool.h"
#include "formats/e2m1.h"
#include "formats/e4m3.h"
#include "formats/ue8m0.h"
#include "kernels/cpu/tile_loops.h"

namespace nibble::cpu {
namespace {

// Eight codes, lowest k in the lowest nibble -> four bytes of codes k and k + 4.
uint32_t interleave(uint32_t codes) {
  const auto spread = [](uint32_t four) {
    four = (four | four << 8) & 0x00FF00FFu;
    return (four | four << 4) & 0x0F0F0F0Fu;
  };
  return spread(codes & 0xFFFFu) | spread(codes >> 16) << 4;
}

constexpr uint32_t kNegateCodes = 0x88888888u;
constexpr uint8_t kNvfp4Nan = 0x7F;
constexpr uint8_t kMxfp4Nan = 0xFF;

uint8_t largest_scale(const WeightTensor& t, int64_t row) {
  const int64_t blocks = t.k / block_size(t.format);
  const uint8_t* const scales = t.scales + row * blocks;
  uint8_t largest = 0;
  for (int64_t b = 0; b < blocks; ++b) largest = std::max(largest, scales[b]);
  return largest;
}

// Writes row r of a tile from k on; false where one of its scales is NaN.
bool pack_row(const WeightTensor& t, int64_t row, int r, int64_t first_k, uint8_t* tile) {
  const int64_t block = block_size(t.format);
  const uint8_t* codes = t.codes + row * (t.k / 2);
  const uint8_t* scales = t.scales + row * (t.k / block);
  uint8_t* tile_scales = tile + tile_code_bytes(t.k);
  bool finite = true;
  for (int64_t b = 0; b < t.k / block; ++b) {
    uint8_t scale = scales[b];
    uint32_t flip = 0;
    if (t.format == WeightFormat::kNvfp4) {
      // Kernels read scales as unsigned; a negative one moves its sign to the codes.
      flip = (scale & 0x80) != 0 ? kNegateCodes : 0;
      scale &= 0x7F;
      finite &= scale != kNvfp4Nan;
    } else {
      finite &= scale != kMxfp4Nan;
    }
    tile_scales[b * kTileRows + r] = scale;
    for (int64_t k = std::max(first_k, b * block); k < (b + 1) * block; k += 8) {
      uint32_t eight;
      std::memcpy(&eight, codes + k / 2, sizeof(eight));
      eight = interleave(eight ^ flip);
      std::memcpy(tile + k * 8 + 4 * r, &eight, sizeof(eight));
    }
  }
  return finite;
}

// What lies below `first_k` of a whole tile without negative scales, with vectors: a model's load
// time is mostly this.
int64_t pack_vectors(const WeightTensor& t, int64_t first_row, int64_t rows, uint8_t* tile) {
  constexpr int64_t kChunk = 64;
  if (rows < kTileRows) return 0;
  for (int64_t r = 0; r < rows && t.format == WeightFormat::kNvfp4; ++r) {
    if (largest_scale(t, first_row + r) >= 0x80) return 0;
  }
  avx2::pack_codes(t.codes + first_row * (t.k / 2), t.k / 2, t.k / kChunk, tile);
  return t.k / kChunk * kChunk;
}

void decode_row(const PreparedWeight& w, int64_t i, float* out) {
  const uint8_t* tile = w.codes + i / kTileRows * tile_bytes(w.format, w.k);
  const uint8_t* scales = tile + tile_code_bytes(w.k);
  const int64_t r = i % kTileRows;
  const int64_t block = block_size(w.format);
  for (int64_t k = 0; k < w.k; ++k) {
    const uint8_t byte = tile[k / 8 * 64 + 4 * r + k % 4];
    const uint8_t s = scales[k / block * kTileRows + r];
    const float scale = w.format == WeightFormat::kNvfp4 ? e4m3_to_float(s) : ue8m0_to_float(s);
    out[k] = e2m1_to_float(k % 8 < 4 ? byte & 0xF : byte >> 4) * scale;
  }
}

PreparedWeight prepare(const WeightTensor& tensor, Stream stream) {
  PreparedWeight w;
  static_cast<WeightTensor&>(w) = tensor;
  w.layout = WeightLayout::kCpuTiles;
  w.decode_row = decode_row;
  const int64_t tiles = (tensor.n + kTileRows - 1) / kTileRows;
  const int64_t bytes = tile_bytes(tensor.format, tensor.k);
  const size_t tiles_size = static_cast<size_t>(tiles * bytes);
  HostArena own;
  HostArena& arena = stream.arena != nullptr ? *stream.arena : own;
  const std::shared_ptr<uint8_t> memory =
      arena.allocate(tiles_size + static_cast<size_t>(tiles * kTileRows) * sizeof(float));
  float* row_alpha = reinterpret_cast<float*>(memory.get() + tiles_size);
  stream.pool->parallel_for(tiles, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      uint8_t* tile = memory.get() + i * bytes;
      const int64_t rows = std::min(kTileRows, tensor.n - i * kTileRows);
      if (rows < kTileRows) std::memset(tile, 0, static_cast<size_t>(bytes));
      const int64_t packed = pack_vectors(tensor, i * kTileRows, rows, tile);
      for (int r = 0; r < rows; ++r) {
        const int64_t row = i * kTileRows + r;
        row_alpha[row] = pack_row(tensor, row, r, packed, tile)
                             ? w.alpha(row)
                             : std::numeric_limits<float>::quiet_NaN();
      }
      std::fill_n(row_alpha + i * kTileRows + rows, kTileRows - rows, 0.0f);
    }
  });
  w.codes = memory.get();
  w.scales = nullptr;
  w.row_alpha = row_alpha;
  w.bytes = tiles_size;
  w.owner = memory;
  return w;
}

Support can_prepare(const WeightTensor& tensor, const DeviceInfo& device) {
  if (device.kind != DeviceKind::kCpu) return Support::no("runs on a CPU only");
  if (!device.cpu.avx2) return Support::no("needs AVX2");
  if (!is_fp4(tensor.format)) {
    return Support::no("holds nvfp4 and mxfp4, found {}", to_string(tensor.format));
  }
  return Support::yes();
}

}  // namespace

const WeightLayoutImpl kTileLayout = {
    .layout = WeightLayout::kCpuTiles, .can_prepare = can_prepare, .prepare = prepare};

}  // namespace nibble::cpu
