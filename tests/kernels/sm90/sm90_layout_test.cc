// The prepared layout, checked on the host: no two codes share a bit, and what the kernels widen is
// what the tensor says.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <set>

#include "formats/e2m1.h"
#include "formats/e4m3.h"
#include "formats/float16.h"
#include "formats/ue8m0.h"
#include "kernels/sm90/layout.h"
#include "kernels/sm90/widen.h"

namespace nibble::sm90 {
namespace {

struct Tensor : WeightTensor {
  std::vector<uint8_t> code_bytes, scale_bytes;

  Tensor(WeightFormat f, int64_t rows, int64_t cols, uint32_t seed) {
    format = f;
    n = rows;
    k = cols;
    std::mt19937 rng(seed);
    code_bytes.resize(n * k / 2);
    for (auto& b : code_bytes) b = static_cast<uint8_t>(rng());
    scale_bytes.resize(n * k / block_size(f));
    for (auto& s : scale_bytes) {
      s = f == WeightFormat::kMxfp4 ? static_cast<uint8_t>(100 + rng() % 31)
                                    : static_cast<uint8_t>(rng());
      if (f == WeightFormat::kNvfp4 && (s & 0x7F) == kE4m3Nan) s = 0;
    }
    codes = code_bytes.data();
    scales = scale_bytes.data();
    if (f == WeightFormat::kNvfp4) segments = {{0, 0.5f}, {n / 3, 2.0f}, {n / 2, 0.25f}};
  }
  float value(int64_t i, int64_t j) const {
    const uint8_t s = scales[(i * k + j) / block_size(format)];
    const float scale = format == WeightFormat::kNvfp4 ? e4m3_to_float(s) : ue8m0_to_float(s);
    return e2m1_to_float(unpack_e2m1(codes + i * k / 2, static_cast<int>(j))) * scale;
  }
  float alpha(int64_t i) const {
    float a = 1.0f;
    for (const Segment& s : segments) {
      if (s.row_begin <= i) a = s.global_decode_scale;
    }
    return a;
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

TEST(Sm90Layout, UnpackingGivesEveryValueExactly) {
  for (const WeightFormat format : {WeightFormat::kNvfp4, WeightFormat::kMxfp4}) {
    const Tensor t(format, 37, 352, 7);
    ASSERT_TRUE(can_pack(t)) << can_pack(t).reason;
    const Packed packed(t);
    for (int64_t i = 0; i < row_blocks(t.n) * kBlockRows; ++i) {
      for (int64_t kb = 0; kb < k_blocks(t.k); ++kb) {
        float row[kBlockK];
        unpack_block_row(packed.bytes.data() + block_offset(i / kBlockRows, kb, t.n),
                         static_cast<int>(i % kBlockRows), row);
        for (int j = 0; j < kBlockK; ++j) {
          const int64_t k = kb * kBlockK + j;
          const double want = i < t.n && k < t.k ? double{t.value(i, k)} * t.alpha(i) : 0.0;
          ASSERT_EQ(double{row[j]} * packed.row_alpha[i], want) << "row " << i << " k " << k;
        }
      }
    }
  }
}

// As lane 4g + t of a kernel reads a block: the registers of every step's 16 x 16 tile.
template <Wide kWide>
void expect_fragments(float (*widen)(uint16_t), uint16_t (*narrow)(float)) {
  const Tensor t(WeightFormat::kNvfp4, 16, 128, 11);
  const Packed packed(t);
  const uint8_t* block = packed.bytes.data();
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4;
    for (int pair = 0; pair < 4; ++pair) {
      uint32_t words[2], out[8], scale_word;
      std::memcpy(words, block + pair / 2 * 512 + lane * 16 + pair % 2 * 8, sizeof(words));
      std::memcpy(&scale_word, block + kBlockCodeBytes + g * 16 + pair * 4, sizeof(scale_word));
      widen_codes<kWide>(words[0], words[1], out);
      for (int r = 0; r < 16; ++r) {
        const int step = r / 8, reg = r / 2 % 4, half = r % 2;
        const uint32_t scales = widen_scales<kWide>(scale_word, step);
        const auto code = static_cast<uint16_t>(out[r / 2] >> (16 * half));
        const auto scale = static_cast<uint16_t>(scales >> (16 * (reg % 2)));
        const int row = g + reg % 2 * 8;
        const int k = (pair * 2 + step) * 16 + lane % 4 * 2 + half + reg / 2 * 8;
        const float product = widen(code) * widen(scale);
        EXPECT_EQ(double{product} * kSumScale, t.value(row, k)) << "row " << row << " k " << k;
        EXPECT_EQ(widen(narrow(product)), product);
        // bf16's products are normal numbers; fp16's may be subnormal, its units take these.
        EXPECT_TRUE(kWide == Wide::kF16 || product == 0.0f || std::isnormal(product));
      }
    }
  }
}
TEST(Sm90Layout, WideningGivesTheFragmentsOfMma) {
  expect_fragments<Wide::kBF16>(bf16_to_float, float_to_bf16);
  expect_fragments<Wide::kF16>(fp16_to_float, float_to_fp16);
}

// Eight rows of gate, eight of up; 24 rows of each leave no block half empty, 20 do.
TEST(Sm90Layout, GateAndUpLieTogether) {
  for (const int64_t n : {48, 40}) {
    Tensor t(WeightFormat::kNvfp4, n, 128, 5);
    t.gate_up = true;
    const Packed packed(t);
    std::set<int64_t> rows;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t row = packed_row(i, n, true), column = i % (n / 2);
      EXPECT_EQ(row, column / 8 * 16 + column % 8 + (i < n / 2 ? 0 : 8));
      EXPECT_LT(row, row_blocks(n) * kBlockRows);
      rows.insert(row);
      float values[kBlockK];
      unpack_block_row(packed.bytes.data() + block_offset(row / kBlockRows, 0, n),
                       static_cast<int>(row % kBlockRows), values);
      for (int k = 0; k < kBlockK; ++k) {
        ASSERT_EQ(double{values[k]} * packed.row_alpha[row], double{t.value(i, k)} * t.alpha(i));
      }
    }
    EXPECT_EQ(rows.size(), n);
    for (int64_t row = 0; row < row_blocks(n) * kBlockRows; ++row) {
      if (!rows.contains(row)) {
        EXPECT_EQ(packed.row_alpha[row], 0.0f);
      }
    }
  }
}

TEST(Sm90Layout, EveryBitOfABlockBelongsToOneCode) {
  std::set<std::pair<size_t, int>> seen;
  Tensor t(WeightFormat::kNvfp4, 16, 128, 3);
  std::fill(t.scale_bytes.begin(), t.scale_bytes.end(), 0x38);  // 1
  std::fill(t.code_bytes.begin(), t.code_bytes.end(), 0);
  const Packed empty(t);
  for (int bit = 0; bit < 16 * 128 * 4; ++bit) {
    t.code_bytes[bit / 8] = static_cast<uint8_t>(1 << bit % 8);
    const Packed one(t);
    t.code_bytes[bit / 8] = 0;
    int changed = 0;
    for (size_t i = 0; i < one.bytes.size(); ++i) {
      const int flipped = one.bytes[i] ^ empty.bytes[i];
      for (int b = 0; flipped >> b != 0; ++b) {
        if ((flipped >> b & 1) == 0) continue;
        ++changed;
        EXPECT_TRUE(seen.emplace(i, b).second) << "byte " << i << " bit " << b << " twice";
      }
    }
    EXPECT_EQ(changed, 1);
  }
  EXPECT_EQ(seen.size(), size_t{kBlockCodeBytes} * 8);
}

TEST(Sm90Layout, EveryScaleOfE4m3IsHeldExactly) {
  for (int s = 0; s < 256; ++s) {
    if ((s & 0x7F) == kE4m3Nan) continue;
    Tensor t(WeightFormat::kNvfp4, 1, 16, 5);
    t.scale_bytes[0] = static_cast<uint8_t>(s);
    const Packed packed(t);
    float row[kBlockK];
    unpack_block_row(packed.bytes.data(), 0, row);
    for (int j = 0; j < 16; ++j) EXPECT_EQ(row[j], t.value(0, j)) << "scale " << s;
  }
}

TEST(Sm90Layout, NanScalesMarkTheirRow) {
  for (const WeightFormat format : {WeightFormat::kNvfp4, WeightFormat::kMxfp4}) {
    Tensor t(format, 3, 64, 13);
    t.scale_bytes[64 / block_size(format)] = format == WeightFormat::kNvfp4 ? 0xFF : kUe8m0Nan;
    const Packed packed(t);
    EXPECT_FALSE(std::isnan(packed.row_alpha[0]));
    EXPECT_TRUE(std::isnan(packed.row_alpha[1]));
    EXPECT_FALSE(std::isnan(packed.row_alpha[2]));
  }
}

TEST(Sm90Layout, RefusesMxfp4RowsOfTooManyBinades) {
  Tensor t(WeightFormat::kMxfp4, 2, 64, 17);
  t.scale_bytes = {130, 100, 131, 101};
  EXPECT_TRUE(can_pack(t)) << can_pack(t).reason;
  t.scale_bytes[3] = 100;
  EXPECT_FALSE(can_pack(t));
  EXPECT_NE(can_pack(t).reason.find("32 in row 1"), std::string::npos) << can_pack(t).reason;
}

}  // namespace
}  // namespace nibble::sm90
