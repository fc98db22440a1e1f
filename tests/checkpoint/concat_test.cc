#include "checkpoint/checkpoint.h"
#include "tests/checkpoint/model_folder.h"

namespace nibble {
namespace {

using test::expect_error;

struct Part {
  std::vector<uint8_t> codes, scales;
  std::vector<float> row_scales;
  WeightTensor tensor;
};

// Codes and scales count up from `start`, so that every byte is known again.
Part nvfp4(const std::string& name, int64_t n, int64_t k, float global, uint8_t start) {
  Part part;
  for (int64_t i = 0; i < n * k / 2; ++i) part.codes.push_back(static_cast<uint8_t>(start + i));
  for (int64_t i = 0; i < n * k / 16; ++i) part.scales.push_back(static_cast<uint8_t>(start + i));
  part.tensor.name = name;
  part.tensor.format = WeightFormat::kNvfp4;
  part.tensor.n = n;
  part.tensor.k = k;
  part.tensor.codes = part.codes.data();
  part.tensor.scales = part.scales.data();
  part.tensor.segments = {{0, global}};
  return part;
}

TEST(ConcatRows, KeepsDifferingGlobalScalesExactly) {
  const Part q = nvfp4("q", 3, 32, 0.1f, 1);
  const Part k = nvfp4("k", 1, 32, 0.3f, 100);
  const Part v = nvfp4("v", 1, 32, 0.3f, 200);
  std::vector<WeightTensor> parts = {q.tensor, k.tensor, v.tensor};
  parts[1].input_decode_scale = 0.5f;
  parts[2].input_decode_scale = 0.25f;
  const WeightTensor w = concat_rows(parts);
  EXPECT_EQ(w.name, "q|k|v");
  EXPECT_EQ(w.n, 5);
  EXPECT_EQ(w.k, 32);
  ASSERT_EQ(w.segments.size(), 2u);  // k and v share theirs
  EXPECT_EQ(w.segments[0].row_begin, 0);
  EXPECT_EQ(w.segments[0].global_decode_scale, 0.1f);
  EXPECT_EQ(w.segments[1].row_begin, 3);
  EXPECT_EQ(w.segments[1].global_decode_scale, 0.3f);
  EXPECT_EQ(w.input_decode_scale, 0.5f);
  EXPECT_EQ(std::memcmp(w.codes, q.codes.data(), 48), 0);
  EXPECT_EQ(std::memcmp(w.codes + 48, k.codes.data(), 16), 0);
  EXPECT_EQ(std::memcmp(w.codes + 64, v.codes.data(), 16), 0);
  EXPECT_EQ(std::memcmp(w.scales, q.scales.data(), 6), 0);
  EXPECT_EQ(std::memcmp(w.scales + 6, k.scales.data(), 2), 0);
  EXPECT_EQ(std::memcmp(w.scales + 8, v.scales.data(), 2), 0);
}

TEST(ConcatRows, StacksStacks) {
  const Part a = nvfp4("a", 2, 16, 1.0f, 1);
  const Part b = nvfp4("b", 2, 16, 2.0f, 1);
  const std::vector<WeightTensor> pair = {a.tensor, b.tensor};
  const std::vector<WeightTensor> two = {concat_rows(pair), concat_rows(pair)};
  const WeightTensor w = concat_rows(two);
  ASSERT_EQ(w.segments.size(), 4u);
  EXPECT_EQ(w.segments[3].row_begin, 6);
  EXPECT_EQ(w.segments[3].global_decode_scale, 2.0f);
}

TEST(ConcatRows, StacksRowScalesAndPlainRows) {
  const uint8_t codes[] = {1, 2, 3, 4};
  const float scales[] = {0.5f, 0.25f};
  WeightTensor f8;
  f8.format = WeightFormat::kF8;
  f8.n = 2;
  f8.k = 2;
  f8.codes = codes;
  f8.row_scales = scales;
  const WeightTensor w = concat_rows(std::vector<WeightTensor>{f8, f8});
  EXPECT_EQ(w.row_scales[3], 0.25f);
  EXPECT_EQ(w.codes[7], 4);
  EXPECT_EQ(w.scales, nullptr);
  WeightTensor bf16;
  bf16.format = WeightFormat::kBF16;
  bf16.n = 1;
  bf16.k = 2;
  bf16.codes = codes;
  const WeightTensor plain = concat_rows(std::vector<WeightTensor>{bf16, bf16});
  EXPECT_EQ(plain.n, 2);
  EXPECT_EQ(plain.codes[4], 1);
  EXPECT_TRUE(plain.segments.empty());
}

TEST(ConcatRows, RefusesWhatDoesNotFit) {
  const Part a = nvfp4("a", 1, 32, 1.0f, 1);
  const Part b = nvfp4("b", 1, 64, 1.0f, 1);
  expect_error(ErrorCode::kInvalidArgument, {"b (nvfp4, k = 64)", "a (nvfp4, k = 32)"}, [&] {
    concat_rows(std::vector<WeightTensor>{a.tensor, b.tensor});
  });
  WeightTensor mx = a.tensor;
  mx.format = WeightFormat::kMxfp4;
  expect_error(ErrorCode::kInvalidArgument, {"mxfp4", "nvfp4"}, [&] {
    concat_rows(std::vector<WeightTensor>{a.tensor, mx});
  });
  expect_error(ErrorCode::kInvalidArgument, {"no weights"}, [] { concat_rows({}); });
}

}  // namespace
}  // namespace nibble
