// 4-bit weights as every x86-64 kernel reads them. One layout for AVX2, AVX-512 and AMX: the four
// codes that one 32-bit lane multiplies (vpdpbusd, or vpmaddubsw twice) lie together, 16 rows side
// by side, so a 256-bit kernel takes a tile in two halves.
//
// A tile holds 16 rows, padded with zeros below row n:
//   codes: per 16 of k 128 bytes; byte 64 p + 4 r + c holds row r's codes k = 8 p + c (low nibble)
//          and k = 8 p + 4 + c (high), p < 2, c < 4
//   scales: per block (16 or 32 of k) 16 bytes, one a row; never negative
// Codes come before scales, so that every load of codes is a whole cache line.
#pragma once

#include <cstdint>

#include "ops/gemm.h"

namespace nibble::cpu {

inline constexpr int64_t kTileRows = 16;

constexpr int64_t tile_code_bytes(int64_t k) { return kTileRows * k / 2; }
constexpr int64_t tile_bytes(WeightFormat format, int64_t k) {
  const int64_t bytes = tile_code_bytes(k) + kTileRows * (k / block_size(format));
  return (bytes + 63) / 64 * 64;
}

// WeightLayout::kCpuTiles: 4-bit weights on x86-64 with AVX2 or more.
extern const WeightLayoutImpl kTileLayout;

}  // namespace nibble::cpu
