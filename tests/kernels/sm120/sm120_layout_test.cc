// The prepared layout and the fragment maps, checked on the host: against the layouts that
// CUTLASS's traits of the same instruction state, and against what the tensor says.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "formats/e2m1.h"
#include "formats/e4m3.h"
#include "formats/ue8m0.h"
#include "kernels/sm120/emulated_mma.h"
#include "kernels/sm120/layout.h"

namespace nibble::sm120 {
namespace {

// A layout as CUTLASS writes it: index digits over `shape`, first fastest, times `stride`.
struct Mode {
  int shape, stride;
};
int offset(const std::vector<Mode>& modes, int index) {
  int at = 0;
  for (const Mode& m : modes) {
    at += index % m.shape * m.stride;
    index /= m.shape;
  }
  EXPECT_EQ(index, 0);
  return at;
}

// CUTLASS 4.5, mma_traits_sm120.hpp, SM120_16x8x64_TN_VS, and for C mma_traits_sm80.hpp: lanes and
// values -> row + 16 k (A, scales of A), column + 8 k (B, scales of B), row + 16 column (C).
const std::vector<Mode> kALanes = {{4, 128}, {8, 1}}, kAValues = {{8, 16}, {2, 8}, {2, 512}};
const std::vector<Mode> kBLanes = {{4, 64}, {8, 1}}, kBValues = {{8, 8}, {2, 256}};
const std::vector<Mode> kScaleALanes = {{2, 8}, {2, 0}, {8, 1}}, kScaleAValues = {{64, 16}};
const std::vector<Mode> kScaleBLanes = {{4, 0}, {8, 1}}, kScaleBValues = {{64, 8}};
const std::vector<Mode> kCLanes = {{4, 32}, {8, 1}}, kCValues = {{2, 16}, {2, 8}};

TEST(Sm120Fragments, AreThoseOfCutlass) {
  for (int lane = 0; lane < 32; ++lane) {
    for (int v = 0; v < 32; ++v) {
      const Place a = a_place(lane, v / 8, v % 8);
      EXPECT_EQ(a.line + 16 * a.k, offset(kALanes, lane) + offset(kAValues, v));
    }
    for (int v = 0; v < 16; ++v) {
      const Place b = b_place(lane, v / 8, v % 8);
      EXPECT_EQ(b.line + 8 * b.k, offset(kBLanes, lane) + offset(kBValues, v));
    }
    for (int v = 0; v < 4; ++v) {
      const SumPlace c = c_place(lane, v);
      EXPECT_EQ(c.row + 16 * c.column, offset(kCLanes, lane) + offset(kCValues, v));
    }
  }
  // A line's scales are wherever its lanes are, for every thread id.
  for (int k = 0; k < 64; ++k) {
    for (int id = 0; id < 2; ++id) {
      for (int row = 0; row < 16; ++row) {
        EXPECT_EQ(offset(kScaleALanes, scale_lane_a(row, id)) + offset(kScaleAValues, k),
                  row + 16 * k);
      }
    }
    for (int id = 0; id < 4; ++id) {
      for (int column = 0; column < 8; ++column) {
        EXPECT_EQ(offset(kScaleBLanes, scale_lane_b(column, id)) + offset(kScaleBValues, k),
                  column + 8 * k);
      }
    }
  }
}

// All lanes' registers.
struct Warp {
  uint32_t a_words[32][4] = {}, b_words[32][2] = {}, a_scales[32] = {}, b_scales[32] = {};

  uint32_t a(int lane, int reg) const { return a_words[lane][reg]; }
  uint32_t b(int lane, int reg) const { return b_words[lane][reg]; }
  uint32_t scales_a(int lane) const { return a_scales[lane]; }
  uint32_t scales_b(int lane) const { return b_scales[lane]; }
};

float scale_value(WeightFormat format, uint8_t byte) {
  return format == WeightFormat::kMxfp4 ? ue8m0_to_float(byte) : e4m3_to_float(byte);
}

template <WeightFormat kFormat>
void check_emulation(int id_a, int id_b) {
  std::mt19937 random(17 + id_a * 4 + id_b);
  const auto size = static_cast<int>(block_size(kFormat));
  uint8_t a[16][64], b[8][64], scale_a[16][4], scale_b[8][4];
  const auto any_scale = [&] {
    return static_cast<uint8_t>(kFormat == WeightFormat::kMxfp4 ? 117 + random() % 20
                                                                : random() % 0x7F);
  };
  Warp warp;
  // The lanes that do not count hold garbage.
  for (int lane = 0; lane < 32; ++lane) {
    warp.a_scales[lane] = 0xFFFFFFFFu;
    warp.b_scales[lane] = 0xFFFFFFFFu;
  }
  for (auto& row : a) {
    for (uint8_t& code : row) code = random() % 16;
  }
  for (auto& row : b) {
    for (uint8_t& code : row) code = random() % 16;
  }
  for (auto& row : scale_a) {
    for (uint8_t& s : row) s = any_scale();
  }
  for (auto& row : scale_b) {
    for (uint8_t& s : row) s = any_scale();
  }
  for (int lane = 0; lane < 32; ++lane) {
    for (int v = 0; v < 32; ++v) {
      const int at = offset(kALanes, lane) + offset(kAValues, v);
      warp.a_words[lane][v / 8] |= uint32_t{a[at % 16][at / 16]} << (v % 8 * 4);
    }
    for (int v = 0; v < 16; ++v) {
      const int at = offset(kBLanes, lane) + offset(kBValues, v);
      warp.b_words[lane][v / 8] |= uint32_t{b[at % 8][at / 8]} << (v % 8 * 4);
    }
  }
  for (int row = 0; row < 16; ++row) {
    std::memcpy(&warp.a_scales[row % 8 * 4 + row / 8 + 2 * id_a], scale_a[row], 4);
  }
  for (int column = 0; column < 8; ++column) {
    std::memcpy(&warp.b_scales[column * 4 + id_b], scale_b[column], 4);
  }
  for (int lane = 0; lane < 32; ++lane) {
    float c[4] = {1, 2, 3, 4};
    emulate_mma<kFormat>(warp, lane, id_a, id_b, c);
    for (int v = 0; v < 4; ++v) {
      const int at = offset(kCLanes, lane) + offset(kCValues, v), row = at % 16, column = at / 16;
      double sum = v + 1, magnitude = v + 1;
      for (int k = 0; k < 64; ++k) {
        const double product = double{e2m1_to_float(a[row][k])} * e2m1_to_float(b[column][k]) *
                               scale_value(kFormat, scale_a[row][k / size]) *
                               scale_value(kFormat, scale_b[column][k / size]);
        sum += product;
        magnitude += std::fabs(product);
      }
      EXPECT_NEAR(c[v], sum, magnitude * 0x1p-22) << "lane " << lane << " register " << v;
    }
  }
}

TEST(Sm120EmulatedMma, MultipliesWhatTheFragmentsOfCutlassHold) {
  for (int id_a = 0; id_a < 2; ++id_a) {
    for (int id_b = 0; id_b < 4; ++id_b) {
      check_emulation<WeightFormat::kNvfp4>(id_a, id_b);
      check_emulation<WeightFormat::kMxfp4>(id_a, id_b);
    }
  }
}

struct Tensor : WeightTensor {
  std::vector<uint8_t> code_bytes, scale_bytes;

  Tensor(WeightFormat f, int64_t rows, int64_t cols, uint32_t seed) {
    format = f;
    n = rows;
    k = cols;
    std::mt19937 random(seed);
    code_bytes.resize(n * k / 2);
    for (auto& b : code_bytes) b = static_cast<uint8_t>(random());
    scale_bytes.resize(n * k / block_size(f));
    for (auto& s : scale_bytes) {
      s = static_cast<uint8_t>(random());  // signs too
      if (f == WeightFormat::kNvfp4 && (s & 0x7F) == kE4m3Nan) s = 0;
      if (f == WeightFormat::kMxfp4 && s == kUe8m0Nan) s = 0;
    }
    codes = code_bytes.data();
    scales = scale_bytes.data();
    if (f == WeightFormat::kNvfp4) segments = {{0, 0.5f}, {n / 3, 2.0f}, {n / 2, 0.25f}};
  }
  float value(int64_t i, int64_t j) const {
    return e2m1_to_float(unpack_e2m1(codes + i * k / 2, static_cast<int>(j))) *
           scale_value(format, scales[(i * k + j) / block_size(format)]);
  }
};

struct Packed {
  std::vector<uint8_t> bytes;
  std::vector<float> row_alpha;

  explicit Packed(const WeightTensor& t)
      : bytes(packed_bytes(t.n, t.k), 0xAA), row_alpha(row_blocks(t.n) * kBlockRows) {
    for (int64_t rb = 0; rb < row_blocks(t.n); ++rb) {
      pack_rows(t, rb, bytes.data(), row_alpha.data());
    }
  }
};

constexpr WeightFormat kFormats[] = {WeightFormat::kNvfp4, WeightFormat::kMxfp4};

TEST(Sm120Layout, UnpackingGivesEveryValueExactly) {
  for (const WeightFormat format : kFormats) {
    for (const bool gate_up : {false, true}) {
      Tensor t(format, gate_up ? 36 : 37, 352, 7);
      t.gate_up = gate_up;
      const Packed packed(t);
      for (int64_t i = 0; i < t.n; ++i) {
        const int64_t at = packed_row(i, t.n, gate_up);
        for (int64_t kb = 0; kb < k_blocks(t.k); ++kb) {
          float row[kBlockK];
          unpack_block_row(packed.bytes.data() + block_offset(at / kBlockRows, kb, t.n),
                           static_cast<int>(at % kBlockRows), format, row);
          for (int j = 0; j < kBlockK; ++j) {
            const int64_t k = kb * kBlockK + j;
            ASSERT_EQ(row[j], k < t.k ? t.value(i, k) : 0.0f) << "row " << i << " k " << k;
          }
        }
        const float alpha = i < t.n / 3 ? 0.5f : i < t.n / 2 ? 2.0f : 0.25f;
        EXPECT_EQ(packed.row_alpha[at], format == WeightFormat::kMxfp4 ? 1.0f : alpha);
      }
    }
  }
}

// What a kernel's lanes load from a block are the registers of the instruction.
TEST(Sm120Layout, LanesFindTheirFragments) {
  for (const WeightFormat format : kFormats) {
    const Tensor t(format, 16, 128, 11);
    const Packed packed(t);
    const auto size = static_cast<int>(block_size(format));
    for (int step = 0; step < 2; ++step) {
      for (int lane = 0; lane < 32; ++lane) {
        uint32_t registers[4];
        std::memcpy(registers, packed.bytes.data() + step * 512 + lane * 16, sizeof(registers));
        for (int v = 0; v < 32; ++v) {
          const int at = offset(kALanes, lane) + offset(kAValues, v);
          const int row = at % 16, k = step * 64 + at / 16;
          const uint32_t code = registers[v / 8] >> (v % 8 * 4) & 15;
          const uint32_t want = unpack_e2m1(t.codes + row * t.k / 2, k);
          const uint8_t scale = t.scales[(row * t.k + k) / size];
          const bool negative = format == WeightFormat::kNvfp4 && (scale & 0x80) != 0;
          EXPECT_EQ(code, want ^ (negative ? 8 : 0)) << "row " << row << " k " << k;
          // The scale's lane and byte: thread-id-a is the step.
          const int from = scale_lane_a(row, step);
          const uint8_t found =
              packed.bytes[kBlockCodeBytes + from * 4 + static_cast<size_t>(k % 64 / size)];
          EXPECT_EQ(found, negative ? scale & 0x7F : scale);
        }
      }
    }
  }
}

TEST(Sm120Layout, NanScalesMarkTheirRow) {
  for (const WeightFormat format : kFormats) {
    Tensor t(format, 3, 64, 13);
    t.scale_bytes[64 / block_size(format)] = format == WeightFormat::kNvfp4 ? 0xFF : kUe8m0Nan;
    const Packed packed(t);
    EXPECT_FALSE(std::isnan(packed.row_alpha[0]));
    EXPECT_TRUE(std::isnan(packed.row_alpha[1]));
    EXPECT_FALSE(std::isnan(packed.row_alpha[2]));
    // The hardware is never shown one: 0 times NaN would reach other rows' padding.
    float row[kBlockK];
    unpack_block_row(packed.bytes.data(), 1, format, row);
    for (int j = 0; j < block_size(format); ++j) EXPECT_EQ(row[j], 0.0f);
  }
}

}  // namespace
}  // namespace nibble::sm120
