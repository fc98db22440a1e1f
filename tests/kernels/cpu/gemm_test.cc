// Every CPU GEMM on every layout it reads, against the reference, over the case table.
#include "kernels/ref/gemm.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <set>

#include "base/thread_pool.h"
#include "dispatch/cpu_features.h"
#include "kernels/cpu/list.h"
#include "tests/kernels/cpu/gemm_cases.h"

namespace nibble {
namespace {

DeviceInfo this_device(int threads) {
  DeviceInfo info;
  info.cpu = detect_cpu_features();
  info.threads = threads;
  return info;
}

GemmDesc desc_of(const GemmCase& c, WeightLayout layout) {
  return {.m = c.m,
          .n = c.n,
          .k = c.k,
          .weight = c.format,
          .layout = layout,
          .activation = c.activation,
          .num_segments = c.segments,
          .has_c = c.c};
}

// D (and C) with rows further apart than they are long; what lies between must stay.
struct Output {
  static constexpr int64_t kPad = 5;
  int64_t m, n;
  std::vector<float> values;

  Output(int64_t m_, int64_t n_)
      : m(m_), n(n_), values(static_cast<size_t>(m_ * (n_ + kPad)), kSentinel) {}
  void fill(bool with_c) {
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        values[i * (n + kPad) + j] = with_c ? static_cast<float>((i * 7 + j * 3) % 11 - 5)
                                            : std::numeric_limits<float>::quiet_NaN();
      }
    }
  }
  MatrixView view() { return {values.data(), DType::kF32, m, n, n + kPad}; }
  float at(int64_t i, int64_t j) const { return values[i * (n + kPad) + j]; }
  static constexpr float kSentinel = 12345.0f;
};

struct Operands {
  explicit Operands(const GemmCase& c)
      : stride(c.k + 3),
        a(random_activations(c.m, c.k, stride, static_cast<uint32_t>(c.m * 31 + c.k))),
        weight(c.format, c.n, c.k, c.segments, static_cast<uint32_t>(c.n * 17 + c.k)) {}
  int64_t stride;
  std::vector<float> a;
  RandomWeight weight;
};

void run(const GemmImpl& impl, const GemmCase& c, const PreparedWeight& b, std::vector<float>& a,
         int64_t a_stride, Output& out, int threads) {
  ThreadPool pool(threads);
  const Stream stream{DeviceKind::kCpu, &pool, nullptr};
  const DeviceInfo device = this_device(threads);
  GemmArgs args{.desc = desc_of(c, b.layout),
                .a = {a.data(), DType::kF32, c.m, c.k, a_stride},
                .b = &b,
                .d = out.view(),
                .c = c.c ? out.view() : MatrixView{}};
  std::vector<std::max_align_t> workspace;
  const size_t bytes =
      impl.workspace_bytes ? impl.workspace_bytes(args.desc, {}, device) : size_t{0};
  // A canary of known bytes behind the workspace.
  constexpr size_t kCanary = 64;
  std::unique_ptr<uint8_t, decltype(&std::free)> memory(
      static_cast<uint8_t*>(std::aligned_alloc(64, (bytes + kCanary + 63) / 64 * 64)), &std::free);
  std::memset(memory.get() + bytes, 0x5A, kCanary);
  args.workspace = memory.get();
  out.fill(c.c);
  impl.launch(args, {}, stream);
  for (size_t i = 0; i < kCanary; ++i) ASSERT_EQ(memory.get()[bytes + i], 0x5A) << "workspace";
}

// Rounding steps that a sum of k products can see, with some for scales, alpha and C.
double steps(std::string_view impl, const GemmCase& c) {
  const bool integer = impl.find("int8_gemm") != std::string_view::npos;
  return static_cast<double>(integer ? c.k / 16 : c.k) + 8;
}

void check_case(const GemmCase& c, std::set<std::string>& seen) {
  Operands x(c);
  const PreparedWeight canonical = prepare_canonical(x.weight.tensor);
  Output expected(c.m, c.n);
  run(ref::kGemm, c, canonical, x.a, x.stride, expected, 2);

  GemmCase plain = c;
  plain.c = false;
  const RandomWeight positive = x.weight.magnitudes();
  std::vector<float> magnitude = x.a;
  for (float& v : magnitude) v = std::fabs(v);
  Output sums(c.m, c.n);
  run(ref::kGemm, plain, prepare_canonical(positive.tensor), magnitude, x.stride, sums, 2);

  ThreadPool pool(2);
  for (const WeightLayoutImpl& layout : cpu::kernels().weight_layout) {
    const DeviceInfo device = this_device(2);
    if (!layout.can_prepare(x.weight.tensor, device)) continue;
    const PreparedWeight b = layout.prepare(x.weight.tensor, {DeviceKind::kCpu, &pool, nullptr});
    std::vector<float> row(c.k), row_expected(c.k);
    for (int64_t i = 0; i < c.n; ++i) {
      b.decode_row(b, i, row.data());
      canonical.decode_row(canonical, i, row_expected.data());
      ASSERT_EQ(row, row_expected) << to_string(layout.layout) << " row " << i;
    }
    for (const GemmImpl& impl : cpu::kernels().gemm) {
      const GemmDesc desc = desc_of(c, layout.layout);
      if (!impl.can_implement(desc, device)) continue;
      SCOPED_TRACE(std::string(impl.name) + ": " + to_string(desc));
      seen.insert(std::string(impl.name));
      Output out(c.m, c.n), again(c.m, c.n);
      run(impl, c, b, x.a, x.stride, out, 1);
      run(impl, c, b, x.a, x.stride, again, 3);
      ASSERT_EQ(0, std::memcmp(out.values.data(), again.values.data(), out.values.size() * 4))
          << "differs from thread count to thread count";
      for (int64_t i = 0; i < c.m; ++i) {
        for (int64_t j = 0; j < c.n; ++j) {
          const double bound =
              steps(impl.name, c) * 0x1p-24 *
                  (static_cast<double>(sums.at(i, j)) + std::fabs(expected.at(i, j))) +
              0x1p-100;
          ASSERT_LE(std::fabs(static_cast<double>(out.at(i, j)) - expected.at(i, j)), bound)
              << "at " << i << ", " << j << ": " << out.at(i, j) << " for " << expected.at(i, j);
        }
        for (int64_t j = c.n; j < c.n + Output::kPad; ++j) {
          ASSERT_EQ(out.at(i, j), Output::kSentinel) << "wrote beyond row " << i;
        }
      }
    }
  }
}

TEST(CpuGemm, CaseTableStaysWithinTheBound) {
  const auto cases = read_gemm_cases(NIBBLE_SOURCE_DIR "/tests/cases/gemm.txt");
  ASSERT_GT(cases.size(), 40u);
  std::set<std::string> seen;
  for (const GemmCase& c : cases) {
    check_case(c, seen);
    if (HasFatalFailure()) return;
  }
  EXPECT_TRUE(seen.contains("cpu_portable_gemm"));
  if (detect_cpu_features().avx2) {
    for (const char* name : {"cpu_avx2_int8_gemm", "cpu_avx2_tile_gemm", "cpu_avx2_row_gemm"}) {
      EXPECT_TRUE(seen.contains(name)) << name;
    }
  }
}

// Every number of tokens that a loop is unrolled for, and one more than the largest groups.
TEST(CpuGemm, EveryTokenCount) {
  std::set<std::string> seen;
  for (const WeightFormat format : {WeightFormat::kNvfp4, WeightFormat::kMxfp4}) {
    for (const ActivationMode mode :
         {ActivationMode::kInt8, ActivationMode::kBf16, ActivationMode::k16Bit}) {
      for (int64_t m = 1; m <= 33; ++m) {
        check_case({m, 37, 96, format, mode, 2, m % 2 == 0}, seen);
        if (HasFatalFailure()) return;
      }
    }
  }
  for (const WeightFormat format :
       {WeightFormat::kF8, WeightFormat::kBF16, WeightFormat::kF16, WeightFormat::kF32}) {
    for (const ActivationMode mode :
         {ActivationMode::kInt8, ActivationMode::kBf16, ActivationMode::k16Bit}) {
      for (int64_t m = 1; m <= 11; ++m) {
        check_case({m, 9, 80, format, mode, 1, m % 2 == 0}, seen);
        if (HasFatalFailure()) return;
      }
    }
  }
}

// A NaN scale, weight or activation reaches the outputs that it belongs to, and those alone.
TEST(CpuGemm, NanStaysInItsRow) {
  for (const WeightFormat format :
       {WeightFormat::kNvfp4, WeightFormat::kMxfp4, WeightFormat::kF8}) {
    for (const ActivationMode mode :
         {ActivationMode::kInt8, ActivationMode::kBf16, ActivationMode::k16Bit}) {
      const GemmCase c{3, 20, 64, format, mode, 1, false};
      Operands x(c);
      if (format == WeightFormat::kF8) {
        x.weight.codes[1 + 5 * c.k + 7] = 0xFF;
      } else {
        x.weight.scales[5 * (c.k / block_size(format))] =
            format == WeightFormat::kNvfp4 ? 0x7F : 0xFF;
      }
      x.a[x.stride + 3] = std::numeric_limits<float>::quiet_NaN();
      ThreadPool pool(2);
      for (const WeightLayoutImpl& layout : cpu::kernels().weight_layout) {
        if (!layout.can_prepare(x.weight.tensor, this_device(1))) continue;
        const PreparedWeight b =
            layout.prepare(x.weight.tensor, {DeviceKind::kCpu, &pool, nullptr});
        for (const GemmImpl& impl : cpu::kernels().gemm) {
          if (!impl.can_implement(desc_of(c, layout.layout), this_device(1))) continue;
          SCOPED_TRACE(std::string(impl.name) + " " + std::string(to_string(format)));
          Output out(c.m, c.n);
          run(impl, c, b, x.a, x.stride, out, 1);
          for (int64_t i = 0; i < c.m; ++i) {
            for (int64_t j = 0; j < c.n; ++j) {
              ASSERT_EQ(std::isnan(out.at(i, j)), i == 1 || j == 5) << i << ", " << j;
            }
          }
        }
      }
    }
  }
}

// The largest codes of one sign meet the largest activations: no sum of products saturates.
TEST(CpuGemm, LargestSums) {
  for (const WeightFormat format : {WeightFormat::kNvfp4, WeightFormat::kMxfp4}) {
    for (const uint8_t codes : {0x77, 0xFF}) {
      for (const int64_t m : {1, 2, 3, 4, 12}) {
        const GemmCase c{m, 20, 64, format, ActivationMode::kInt8, 1, false};
        Operands x(c);
        std::fill(x.weight.codes.begin(), x.weight.codes.end(), codes);
        std::fill(x.weight.scales.begin(), x.weight.scales.end(), uint8_t{0x7E});
        for (size_t i = 0; i < x.a.size(); ++i) x.a[i] = i / x.stride % 2 == 0 ? 1.0f : -1.0f;
        ThreadPool pool(1);
        for (const WeightLayoutImpl& layout : cpu::kernels().weight_layout) {
          if (!layout.can_prepare(x.weight.tensor, this_device(1))) continue;
          const PreparedWeight b =
              layout.prepare(x.weight.tensor, {DeviceKind::kCpu, &pool, nullptr});
          for (const GemmImpl& impl : cpu::kernels().gemm) {
            if (!impl.can_implement(desc_of(c, layout.layout), this_device(1))) continue;
            Output out(c.m, c.n);
            run(impl, c, b, x.a, x.stride, out, 1);
            const float weight = (codes == 0x77 ? 6.0f : -6.0f) *
                                 (format == WeightFormat::kNvfp4 ? 448.0f * 0.01f : 0.5f);
            for (int64_t i = 0; i < c.m; ++i) {
              for (int64_t j = 0; j < c.n; ++j) {
                const float sum = weight * static_cast<float>(i % 2 == 0 ? c.k : -c.k);
                ASSERT_NEAR(out.at(i, j), sum, 1e-6 * std::fabs(sum)) << impl.name;
              }
            }
          }
        }
      }
    }
  }
}

// A negative block scale negates its codes.
TEST(CpuGemm, NegativeScales) {
  const GemmCase c{2, 20, 64, WeightFormat::kNvfp4, ActivationMode::kInt8, 1, false};
  Operands x(c);
  for (size_t i = 0; i < x.weight.scales.size(); i += 3) x.weight.scales[i] |= 0x80;
  Output expected(c.m, c.n);
  run(ref::kGemm, c, prepare_canonical(x.weight.tensor), x.a, x.stride, expected, 1);
  ThreadPool pool(1);
  for (const WeightLayoutImpl& layout : cpu::kernels().weight_layout) {
    if (!layout.can_prepare(x.weight.tensor, this_device(1))) continue;
    const PreparedWeight b = layout.prepare(x.weight.tensor, {DeviceKind::kCpu, &pool, nullptr});
    for (const GemmImpl& impl : cpu::kernels().gemm) {
      if (!impl.can_implement(desc_of(c, layout.layout), this_device(1))) continue;
      Output out(c.m, c.n);
      run(impl, c, b, x.a, x.stride, out, 1);
      for (int64_t i = 0; i < c.m; ++i) {
        for (int64_t j = 0; j < c.n; ++j) {
          ASSERT_NEAR(out.at(i, j), expected.at(i, j), 1e-3 * std::fabs(expected.at(i, j)) + 1e-3)
              << impl.name;
        }
      }
    }
  }
}

}  // namespace
}  // namespace nibble
