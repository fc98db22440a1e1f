// A quantizer's kernels for many rows and for many elements, which the case table is too small for:
// they give the bytes that the same rows give in a small call. ctest -L gpu, skipped without.
#include <random>
#include <utility>

#include "formats/float16.h"
#include "tests/kernels/cuda/quantize_fixture.h"

namespace nibble {
namespace {

// RMSNorm of many rows has a kernel of its own. NaN and what is too large for a scale included; a
// global scale of 1 has products that fp32 rounds to a tie. Rows of 6000 and 6016 keep their
// weights in shared memory; those of 8208 are too long for that kernel, and their last ones are
// taken one by one.
TEST_F(CudaQuantize, ManyRowsGiveTheBytesOfFew) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  constexpr int64_t few = 128;
  // k: two units of sixteen elements a thread, three, five; warps that are full and not. As many
  // rows for each SM as every CTA takes twice, and some more; four times for four units a thread,
  // of which a warp of 3552 has three.
  for (const auto& [k, rows_of_sm] : {std::pair<int64_t, int64_t>{1040, 150},
                                      {2560, 100},
                                      {2880, 66},
                                      {3552, 98},
                                      {4096, 68},
                                      {4640, 50},
                                      {5120, 50},
                                      {6000, 68},
                                      {6016, 68},
                                      {7168, 34},
                                      {7200, 68},
                                      {8192, 50},
                                      {8208, 33}}) {
    const int64_t rows = rows_of_sm * device_->info().num_sms + 24;
    const Matrix x = matrix(rows, k), part = matrix(few, k);
    std::vector<uint16_t> values(static_cast<size_t>(rows * k));
    for (int64_t i = 0; i < rows; ++i) {
      const float size = i % 7 == 0 ? 1e-3f : 1.0f;
      for (int64_t j = 0; j < k; ++j) {
        const float e = normal(random);
        values[i * k + j] = float_to_bf16(j == 5 && i % 11 == 0 ? 1e4f * e : size * e);
      }
    }
    values[static_cast<size_t>(130 * k + 3)] = 0x7FC0;
    cuda::copy(x.src.get(), values.data(), values.size() * 2, device_->stream().cuda);
    device_->synchronize();
    std::vector<float> weight(static_cast<size_t>(k));
    for (float& w : weight) w = 1.0f + 0.1f * normal(random);
    const cuda::Buffer weights = upload(weight);
    for (const auto& [format, scale] : {std::pair{WeightFormat::kNvfp4, 0.003f},
                                        {WeightFormat::kNvfp4, 1.0f},
                                        {WeightFormat::kMxfp4, 1.0f}}) {
      // The third: so few that half of the CTAs have any.
      for (const auto& [layout, m_all] : {std::pair{ScaleLayout::kSwizzled128x4, rows},
                                          {ScaleLayout::kSwizzled8x4, rows},
                                          {ScaleLayout::kSwizzled128x4, rows / 4 - 3}}) {
        if (format == WeightFormat::kMxfp4 && k % 32 != 0) continue;
        poison(x);
        const auto run = [&](const Matrix& of, int64_t first, int64_t m, ScaleLayout scales) {
          QuantizeArgs a = args(of);
          a.desc.m = m;
          a.desc.format = format;
          a.desc.layout = scales;
          a.desc.input = QuantizeInput::kRmsNorm;
          a.src = {x.src.data() + first * k * 2, DType::kBF16, m, k, k};
          a.global_decode_scale = scale;
          a.norm_weight = static_cast<const float*>(weights.get());
          quantize(a, *device_);
        };
        run(x, 0, m_all, layout);
        if (m_all == rows) {
          EXPECT_TRUE(guards_hold(x));
        }
        // Of every round of the CTAs, and the last.
        for (int64_t first = 128; first < m_all + 2 * few; first += 3 * few) {
          first = std::min(first, m_all / few * few);
          const int64_t m = std::min(few, m_all - first);
          poison(part);
          run(part, first, m, ScaleLayout::kLinear);  // never the kernel for many
          expect_rows(x, first, part, m, format, layout);
        }
      }
    }
  }
}

// The other kernel takes four rows at a time where there are many, and with a residual two units a
// thread: with one, of fp32, and where scales do not lie by fours.
TEST_F(CudaQuantize, ManyRowsGiveTheBytesOfFewWithAResidualToo) {
  constexpr int64_t kRows = 4200, kFew = 128;
  struct Case {
    DType type;
    bool residual;
    ScaleLayout layout;
    int64_t k;
  };
  for (const Case& c : {Case{DType::kBF16, true, ScaleLayout::kSwizzled128x4, 528},
                        {DType::kBF16, true, ScaleLayout::kSwizzled8x4, 1040},
                        {DType::kF16, true, ScaleLayout::kLinear, 272},
                        {DType::kF16, true, ScaleLayout::kSwizzled128x4, 4112},
                        {DType::kBF16, true, ScaleLayout::kSwizzled8x4, 8192},
                        {DType::kBF16, true, ScaleLayout::kSwizzled128x4, 8208},
                        {DType::kF32, false, ScaleLayout::kSwizzled128x4, 528},
                        {DType::kF32, true, ScaleLayout::kSwizzled8x4, 272},
                        {DType::kF16, false, ScaleLayout::kLinear, 528}}) {
    const size_t row_bytes = size_of(c.type) * static_cast<size_t>(c.k);
    const Matrix x = matrix(kRows, c.k, 0, c.type), part = matrix(kFew, c.k);
    const cuda::Buffer sums(0, kRows * row_bytes), part_sums(0, kFew * row_bytes);
    // Of any type: bytes that are no NaN and of one size.
    std::mt19937 random(11);
    std::vector<uint8_t> values(kRows * row_bytes), more(values.size());
    for (std::vector<uint8_t>* bytes : {&values, &more}) {
      for (size_t i = 0; i < bytes->size(); ++i) {
        const bool top = i % size_of(c.type) == size_of(c.type) - 1;
        (*bytes)[i] = static_cast<uint8_t>(top ? 0x3E | random() % 2 << 7 : random());
      }
    }
    auto* stream = device_->stream().cuda;
    cuda::copy(x.src.get(), values.data(), values.size(), stream);
    cuda::copy(sums.get(), more.data(), more.size(), stream);
    const cuda::Buffer weights = upload(std::vector<float>(static_cast<size_t>(c.k), 0.75f));
    const auto run = [&](const Matrix& of, const uint8_t* src, const cuda::Buffer& residual,
                         int64_t m, ScaleLayout layout) {
      QuantizeArgs a = args(of);
      a.desc = {.src_type = c.type,
                .layout = layout,
                .m = m,
                .k = c.k,
                .input = QuantizeInput::kRmsNorm,
                .has_residual = c.residual};
      a.src = {const_cast<uint8_t*>(src), c.type, m, c.k, c.k};
      if (c.residual) a.residual = {residual.get(), c.type, m, c.k, c.k};
      a.global_decode_scale = 0.003f;
      a.norm_weight = static_cast<const float*>(weights.get());
      poison(of);
      quantize(a, *device_);
    };
    run(x, x.src.data(), sums, kRows, c.layout);
    EXPECT_TRUE(guards_hold(x));
    for (int64_t first = 0; first < kRows; first += kFew) {
      const int64_t m = std::min(kFew, kRows - first);
      cuda::copy(part_sums.get(), more.data() + first * row_bytes, m * row_bytes, stream);
      run(part, x.src.data() + first * row_bytes, part_sums, m, ScaleLayout::kLinear);
      expect_rows(x, first, part, m, WeightFormat::kNvfp4, c.layout);
      if (c.residual) {
        EXPECT_EQ(fetch(sums.data() + first * row_bytes, m * row_bytes),
                  fetch(part_sums.data(), m * row_bytes))
            << "residual from row " << first;
      }
    }
  }
}

// Which kernel plain rows take depends on how many elements there are; the case table has few.
TEST_F(CudaQuantize, EveryConfigurationGivesTheSameBytes) {
  std::mt19937 random(13);
  for (const auto& [m, k] : {std::pair<int64_t, int64_t>{389, 1056}, {3, 4160}, {130, 96}}) {
    const Matrix x = matrix(m, k);
    std::vector<uint16_t> values(static_cast<size_t>(m * k));
    for (uint16_t& v : values)
      v = static_cast<uint16_t>((0x3000 + random() % 0x1000) | random() % 2 << 15);
    cuda::copy(x.src.get(), values.data(), values.size() * 2, device_->stream().cuda);
    for (const WeightFormat format : {WeightFormat::kNvfp4, WeightFormat::kMxfp4}) {
      for (const DType type : {DType::kBF16, DType::kF16}) {
        for (const ScaleLayout layout :
             {ScaleLayout::kLinear, ScaleLayout::kSwizzled128x4, ScaleLayout::kSwizzled8x4}) {
          QuantizeArgs a = args(x);
          a.desc.format = format;
          a.desc.src_type = type;
          a.desc.layout = layout;
          a.src.dtype = type;
          a.global_decode_scale = 0.0005f;
          std::vector<std::string> seen;
          std::vector<uint8_t> codes, scales;
          for (int64_t rows = 1; rows * k < int64_t{1} << 30; rows *= 2) {
            QuantizeDesc of_size = a.desc;
            of_size.m = rows;
            const KernelConfig config = impl().candidates(of_size, device_->info())[0];
            if (std::ranges::find(seen, to_string(config)) != seen.end()) continue;
            seen.push_back(to_string(config));
            poison(x);
            impl().launch(a, config, device_->stream());
            const auto these_codes = fetch(x.codes.data(), m * k / 2 + 2 * kGuard);
            const auto these_scales = fetch(x.scales.data(), scale_room(m, k));
            if (codes.empty()) codes = these_codes, scales = these_scales;
            EXPECT_EQ(these_codes, codes) << to_string(config) << ", " << to_string(a.desc);
            EXPECT_EQ(these_scales, scales) << to_string(config) << ", " << to_string(a.desc);
          }
          EXPECT_GE(seen.size(), 2);
        }
      }
    }
  }
}

}  // namespace
}  // namespace nibble
