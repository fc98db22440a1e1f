// What one lane of the block-scaled mma.sync.m16n8k64 ends up with, from all lanes' registers, in
// plain arithmetic. Products of codes and their sum over a block of scales are whole numbers
// (doubled codes), and that sum times both scales is exact in fp32: rounding happens only where the
// blocks are added to c, k ascending. (The chip's own order is not documented.)
#pragma once

#include <cstdint>

#include "base/host_device.h"
#include "formats/e2m1.h"
#include "formats/e4m3.h"
#include "formats/ue8m0.h"
#include "kernels/sm120/fragments.h"
#include "nibble/types.h"

namespace nibble::sm120 {

#ifdef __CUDA_ARCH__
// Four codes -> their doubled values, a byte each.
__device__ __forceinline__ int doubled_codes(uint32_t four) {
  const uint32_t magnitudes = __byte_perm(0x03020100u, 0x0C080604u, four & 0x7777u);
  uint32_t spread = four & 0x8888u;
  spread = (spread | spread << 8) & 0x00FF00FFu;
  spread = (spread | spread << 4) & 0x0F0F0F0Fu;
  const uint32_t negative = (spread >> 3) * 0xFFu;
  return static_cast<int>(__vsub4(magnitudes ^ negative, negative));
}
#endif

// Four times the sum of the products of eight codes.
NIBBLE_HD inline int dot8(uint32_t a, uint32_t b) {
#ifdef __CUDA_ARCH__
  return __dp4a(doubled_codes(a), doubled_codes(b),
                __dp4a(doubled_codes(a >> 16), doubled_codes(b >> 16), 0));
#else
  float sum = 0;
  for (int i = 0; i < 32; i += 4) {
    sum += e2m1_to_float(static_cast<uint8_t>(a >> i & 15)) *
           e2m1_to_float(static_cast<uint8_t>(b >> i & 15));
  }
  return static_cast<int>(4 * sum);
#endif
}

template <WeightFormat kFormat>
NIBBLE_HD inline float scale_of(uint32_t word, int block) {
  const auto byte = static_cast<uint8_t>(word >> (8 * block));
  // The instruction's e4m3 has no sign.
  return kFormat == WeightFormat::kMxfp4 ? ue8m0_to_float(byte) : e4m3_to_float(byte & 0x7F);
}

// lanes.a(lane, reg), .b(lane, reg), .scales_a(lane), .scales_b(lane) give another lane's words;
// every lane asks at the same time.
template <WeightFormat kFormat, class Lanes>
NIBBLE_HD inline void emulate_mma(const Lanes& lanes, int lane, int id_a, int id_b, float (&c)[4]) {
  constexpr int kWords = kFormat == WeightFormat::kMxfp4 ? 4 : 2;  // of eight k in a block
  const int row = c_place(lane, 0).row, column = c_place(lane, 0).column;
  uint32_t scales_a[2], scales_b[2];
  for (int i = 0; i < 2; ++i) {
    scales_a[i] = lanes.scales_a(scale_lane_a(row + 8 * i, id_a));
    scales_b[i] = lanes.scales_b(scale_lane_b(column + i, id_b));
  }
#ifdef __CUDA_ARCH__
#pragma unroll 1  // short code before fast code
#endif
  for (int block = 0; block < 8 / kWords; ++block) {
    int sum[4] = {};
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
    for (int word = block * kWords; word < (block + 1) * kWords; ++word) {
      const int from = word % 4, half = word / 4;
      const uint32_t a[2] = {lanes.a(row * 4 + from, half * 2),
                             lanes.a(row * 4 + from, half * 2 + 1)};
      const uint32_t b[2] = {lanes.b(column * 4 + from, half),
                             lanes.b((column + 1) * 4 + from, half)};
      for (int i = 0; i < 4; ++i) sum[i] += dot8(a[i / 2], b[i % 2]);
    }
    for (int i = 0; i < 4; ++i) {
      c[i] += 0.25f * static_cast<float>(sum[i]) * scale_of<kFormat>(scales_a[i / 2], block) *
              scale_of<kFormat>(scales_b[i % 2], block);
    }
  }
}

}  // namespace nibble::sm120
