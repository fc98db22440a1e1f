// The vector loops' edges: widths that no vector divides, long rows, extreme arguments. The case
// table covers the rest.
#include "kernels/cpu/vector_ops.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "base/thread_pool.h"
#include "dispatch/cpu_features.h"
#include "kernels/cpu/list.h"
#include "kernels/ref/model_ops.h"

namespace nibble {
namespace {

DeviceInfo this_device() {
  DeviceInfo info;
  info.cpu = detect_cpu_features();
  info.threads = 3;
  return info;
}

std::vector<float> normal(int64_t n, float spread, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution(0, spread);
  std::vector<float> x(static_cast<size_t>(n));
  for (float& v : x) v = distribution(random);
  return x;
}

MatrixView view(std::vector<float>& x, int64_t rows, int64_t cols) {
  return {x.data(), DType::kF32, rows, cols, cols};
}

// Calls check(name, launch) for every implementation that takes desc here.
template <class Impl, class Fn>
void each(std::span<const Impl> impls, const typename Impl::Desc& desc, Fn&& check) {
  static ThreadPool pool(3);
  const Stream stream{DeviceKind::kCpu, &pool, nullptr};
  int count = 0;
  for (const Impl& impl : impls) {
    if (!impl.can_implement(desc, this_device())) continue;
    SCOPED_TRACE(std::string(impl.name) + ": " + to_string(desc));
    check([&](const typename Impl::Args& args) { impl.launch(args, {}, stream); });
    ++count;
  }
  EXPECT_GT(count, this_device().cpu.avx2 ? 1 : 0);
}

const Stream kNoStream{};

TEST(VectorOps, RmsNorm) {
  for (const int64_t cols : {1, 7, 8, 15, 16, 33, 576, 1536}) {
    std::vector<float> x = normal(3 * cols, 2, 1), weight = normal(cols, 1, 2);
    std::vector<float> expected(x.size());
    RmsNormArgs args{.desc = {.rows = 3, .cols = cols},
                     .x = view(x, 3, cols),
                     .weight = weight.data(),
                     .eps = 1e-5f,
                     .y = view(expected, 3, cols)};
    ref::kRmsNorm.launch(args, {}, kNoStream);
    each(cpu::kernels().rms_norm, args.desc, [&](auto launch) {
      std::vector<float> y(x.size() + 1, -77.0f);
      args.y = view(y, 3, cols);
      launch(args);
      for (size_t i = 0; i < expected.size(); ++i) {
        ASSERT_NEAR(y[i], expected[i], 4e-7 * std::fabs(expected[i])) << i;
      }
      ASSERT_EQ(y.back(), -77.0f);
    });
  }
}

TEST(VectorOps, RopeAtLongPositions) {
  for (const int64_t dim : {2, 6, 64, 80, 128}) {
    const std::vector<int32_t> positions = {0, 1, 77, 8191, 99999};
    std::vector<float> inv_freq;
    for (int64_t i = 0; i < dim / 2; ++i) {
      inv_freq.push_back(
          std::pow(10000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(dim)));
    }
    const int64_t rows = static_cast<int64_t>(positions.size());
    std::vector<float> x = normal(rows * 3 * dim, 1, 3);
    std::vector<float> expected = x;
    RopeArgs args{.desc = {.rows = rows, .heads = 3, .head_dim = dim},
                  .x = view(expected, rows, 3 * dim),
                  .positions = positions.data(),
                  .inv_freq = inv_freq.data(),
                  .attention_factor = 1.25f};
    ref::kRope.launch(args, {}, kNoStream);
    each(cpu::kernels().rope, args.desc, [&](auto launch) {
      std::vector<float> y = x;
      args.x = view(y, rows, 3 * dim);
      launch(args);
      for (size_t i = 0; i < y.size(); ++i) ASSERT_NEAR(y[i], expected[i], 3e-6) << i;
    });
  }
}

TEST(VectorOps, SiluOfExtremes) {
  const float kInf = std::numeric_limits<float>::infinity();
  std::vector<float> gates = {0.0f, -0.0f, 1e-30f, -1.0f, 20.0f, -20.0f, 87.0f, -80.0f, 1e30f};
  for (float g = -30; g < 30; g += 0.37f) gates.push_back(g);
  const int64_t cols = static_cast<int64_t>(gates.size());
  std::vector<float> x = gates;
  for (int64_t i = 0; i < cols; ++i) x.push_back(1.5f);
  std::vector<float> expected(gates.size());
  SiluMulArgs args{
      .desc = {.rows = 1, .cols = cols}, .x = view(x, 1, 2 * cols), .y = view(expected, 1, cols)};
  ref::kSiluMul.launch(args, {}, kNoStream);
  each(cpu::kernels().silu_mul, args.desc, [&](auto launch) {
    std::vector<float> y(gates.size());
    args.y = view(y, 1, cols);
    launch(args);
    for (size_t i = 0; i < y.size(); ++i) {
      ASSERT_NEAR(y[i], expected[i], 1e-6 * std::fabs(expected[i]) + 1e-33) << gates[i];
    }
    std::vector<float> odd = {std::nanf(""), kInf, 1, 1};
    launch({.desc = {.rows = 1, .cols = 2}, .x = view(odd, 1, 4), .y = view(y, 1, 2)});
    ASSERT_TRUE(std::isnan(y[0]));
    ASSERT_EQ(y[1], kInf);
  });
}

struct AttentionShape {
  int64_t rows, kv_len, heads, kv_heads, dim;
};

TEST(VectorOps, Attention) {
  for (const AttentionShape& s :
       {AttentionShape{1, 1, 1, 1, 8}, AttentionShape{1, 200, 9, 3, 64},
        AttentionShape{2, 65, 4, 2, 80}, AttentionShape{5, 5, 9, 3, 64},
        AttentionShape{70, 130, 6, 2, 20}, AttentionShape{13, 64, 8, 1, 128},
        AttentionShape{100, 100, 2, 2, 48}}) {
    const int64_t width = s.heads * s.dim;
    std::vector<float> q = normal(s.rows * width, 3, 4);
    std::vector<float> k = normal(s.kv_heads * s.kv_len * s.dim, 3, 5);
    std::vector<float> v = normal(s.kv_heads * s.kv_len * s.dim, 1, 6);
    std::vector<float> expected(q.size());
    ThreadPool one(1);
    AttentionArgs args{.desc = {.rows = s.rows,
                                .kv_len = s.kv_len,
                                .heads = s.heads,
                                .kv_heads = s.kv_heads,
                                .head_dim = s.dim},
                       .q = view(q, s.rows, width),
                       .k = k.data(),
                       .v = v.data(),
                       .kv_head_stride = s.kv_len * s.dim,
                       .scale = 0.2f,
                       .out = view(expected, s.rows, width)};
    ref::kAttention.launch(args, {}, {DeviceKind::kCpu, &one, nullptr});
    each(cpu::kernels().attention, args.desc, [&](auto launch) {
      std::vector<float> in_place = q;  // out may be q
      args.q = args.out = view(in_place, s.rows, width);
      launch(args);
      for (size_t i = 0; i < q.size(); ++i) ASSERT_NEAR(in_place[i], expected[i], 3e-5) << i;
      args.q = view(q, s.rows, width);
    });
  }
}

TEST(VectorOps, LargestLogitWithTies) {
  for (const int64_t vocab : {1, 5, 16, 33, 49152}) {
    for (const int64_t at : {int64_t{0}, vocab / 2, vocab - 1}) {
      std::vector<float> logits = normal(vocab, 1, 7);
      logits[static_cast<size_t>(at)] = logits[static_cast<size_t>(vocab - 1)] = 50;
      int32_t token = -1;
      SamplingArgs args{.desc = {.vocab = vocab}, .logits = logits.data(), .token = &token};
      each(cpu::kernels().sampling, args.desc, [&](auto launch) {
        launch(args);
        ASSERT_EQ(token, at);
      });
    }
  }
}

// Every implementation draws what the oracle draws, wherever in the distribution that is.
TEST(VectorOps, DrawsAsTheOracle) {
  struct Cut {
    float temperature;
    int64_t top_k;
    float top_p, min_p;
  };
  const Cut cuts[] = {{1, 0, 1, 0},         {0.1f, 0, 1, 0},     {20, 0, 1, 0}, {1e-30f, 0, 1, 0},
                      {1, 0, 0.9f, 0},      {3, 0, 0.99f, 0.1f}, {1, 0, 1, 2},  {5, 40, 1, 0},
                      {2, 3, 0.8f, 0.001f}, {1, 1 << 20, 1, 0},  {1, 0, 0, 0}};
  for (const int64_t vocab : {1, 7, 100, 5003}) {
    for (const Cut& cut : cuts) {
      std::vector<float> logits = normal(vocab, 3, 8);
      logits[0] = logits[static_cast<size_t>(vocab / 2)] = 11;  // equals
      int32_t token = -1;
      SamplingArgs args{.desc = {.vocab = vocab,
                                 .temperature = cut.temperature,
                                 .top_k = cut.top_k,
                                 .top_p = cut.top_p,
                                 .min_p = cut.min_p},
                        .logits = logits.data(),
                        .token = &token};
      for (const double uniform : {0.0, 0.3, 0.6, 0.9, 0.99, 0.9995}) {
        args.uniform = uniform;
        ref::kSampling.launch(args, {}, kNoStream);
        const int32_t expected = std::exchange(token, -1);
        each(cpu::kernels().sampling, args.desc, [&](auto launch) {
          launch(args);
          EXPECT_EQ(token, expected) << uniform;
        });
      }
    }
  }
}

// A logit that is no number has no weight.
TEST(VectorOps, NanIsNeverDrawn) {
  std::vector<float> logits(100, std::numeric_limits<float>::quiet_NaN());
  logits[0] = logits[40] = 1;
  int32_t token = -1;
  SamplingArgs args{.desc = {.vocab = 100, .temperature = 1},
                    .logits = logits.data(),
                    .uniform = 0.75,
                    .token = &token};
  each(cpu::kernels().sampling, args.desc, [&](auto launch) {
    launch(args);
    EXPECT_EQ(token, 40);
  });
}

}  // namespace
}  // namespace nibble
