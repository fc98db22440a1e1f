// GEMMs of a whole model's layers, whose weights together exceed the caches as they do in a real
// step. Prints, per mode and thread count, the best and the median of repeated passes; one thread
// is timed by the processor time that it got, so that other programs disturb it less.
//   bench_cpu_gemm [format] [activation] [m ...]
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "nibble/gemm.h"

namespace {

using namespace nibble;

struct Layer {
  int64_t n, k;
};
// SmolLM2-135M: qkv, o, gate|up, down, thirty times over.
constexpr Layer kLayers[] = {{960, 576}, {576, 576}, {3072, 576}, {576, 1536}};
constexpr int kRepeats = 30;
constexpr int kPasses = 15;

double now(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}
double seconds() { return now(CLOCK_MONOTONIC); }

// GB/s of plain reads of `bytes`, the best of several.
double read_bandwidth(ThreadPool& pool, size_t bytes) {
  std::vector<uint64_t> data(bytes / 8, 1);
  std::vector<uint64_t> sums(static_cast<size_t>(pool.size()) * 8);
  double best = 1e9;
  for (int pass = 0; pass < kPasses; ++pass) {
    const double start = seconds();
    pool.run([&](int worker) {
      const size_t begin = data.size() * static_cast<size_t>(worker) / sums.size() * 8;
      const size_t end = data.size() * static_cast<size_t>(worker + 1) / sums.size() * 8;
      uint64_t lanes[16] = {};
      for (size_t i = begin; i + 16 <= end; i += 16) {
        for (size_t l = 0; l < 16; ++l) lanes[l] += data[i + l];
      }
      sums[static_cast<size_t>(worker) * 8] = std::accumulate(lanes, lanes + 16, uint64_t{0});
    });
    best = std::min(best, seconds() - start);
  }
  if (std::accumulate(sums.begin(), sums.end(), uint64_t{0}) == 0) std::puts("?");
  return static_cast<double>(bytes) / best / 1e9;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string format_name = argc > 1 ? argv[1] : "nvfp4";
  const std::string mode_name = argc > 2 ? argv[2] : "int8";
  std::vector<int64_t> ms;
  for (int i = 3; i < argc; ++i) ms.push_back(std::atoll(argv[i]));
  if (ms.empty()) ms = {1, 2, 4, 8, 128, 512};
  WeightFormat format = WeightFormat::kNvfp4;
  for (const WeightFormat f : {WeightFormat::kF32, WeightFormat::kF16, WeightFormat::kBF16,
                               WeightFormat::kMxfp4, WeightFormat::kF8}) {
    if (to_string(f) == format_name) format = f;
  }
  ActivationMode mode = ActivationMode::kInt8;
  for (const ActivationMode a : kActivationModes) {
    if (to_string(a) == mode_name) mode = a;
  }

  std::mt19937 random(1);
  const int64_t max_m = *std::max_element(ms.begin(), ms.end());
  std::vector<float> a(static_cast<size_t>(max_m) * 1536);
  for (float& x : a) x = std::normal_distribution<float>()(random);
  std::vector<float> d(static_cast<size_t>(max_m) * 3072);

  for (const int threads : {1, 2}) {
    const Device device = Device::cpu(threads);
    const ThreadPool::Active active(device.pool());
    std::vector<std::vector<uint8_t>> memory;
    std::vector<std::vector<float>> row_scales;
    std::vector<GemmPlan> plans;
    double prepare_seconds = 0;
    size_t bytes = 0;
    double macs = 0;
    for (int repeat = 0; repeat < kRepeats; ++repeat) {
      for (const Layer& layer : kLayers) {
        WeightTensor t;
        t.format = format;
        t.n = layer.n;
        t.k = layer.k;
        memory.emplace_back(static_cast<size_t>(t.n * row_bytes(format, t.k)));
        for (uint8_t& x : memory.back()) x = static_cast<uint8_t>(random() & 0x77);
        t.codes = memory.back().data();
        if (is_fp4(format)) {
          memory.emplace_back(static_cast<size_t>(t.n * (t.k / block_size(format))), uint8_t{0x38});
          t.scales = memory.back().data();
        }
        t.segments = {{0, 1.0f}};
        row_scales.emplace_back(static_cast<size_t>(t.n), 1.0f);
        if (format == WeightFormat::kF8) t.row_scales = row_scales.back().data();
        const double start = seconds();
        const LinearWeight w = prepare(t, device, mode);
        prepare_seconds += seconds() - start;
        bytes += w.bytes();
        macs += static_cast<double>(layer.n * layer.k);
        plans.emplace_back(w, device, GemmOptions{.max_m = max_m, .activation = mode});
      }
    }
    std::printf("%d threads: %.1f MB prepared in %.0f ms, reads %.1f GB/s\n", threads,
                static_cast<double>(bytes) / 1e6, prepare_seconds * 1e3,
                read_bandwidth(device.pool(), bytes));
    for (const int64_t m : ms) {
      std::vector<double> times;
      const clockid_t clock = threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
      for (int pass = 0; pass < (m > 64 ? 5 : kPasses); ++pass) {
        const double start = now(clock);
        for (const GemmPlan& plan : plans) {
          plan.run(a.data(), plan.weight().k(), d.data(), plan.weight().n(), m);
        }
        times.push_back(now(clock) - start);
      }
      std::sort(times.begin(), times.end());
      const auto row = [&](double t) {
        std::printf("  %8.3f ms %6.1f GB/s %7.1f GMAC/s %8.1f tok/s", t * 1e3,
                    static_cast<double>(bytes) / t / 1e9, macs * static_cast<double>(m) / t / 1e9,
                    static_cast<double>(m) / t);
      };
      std::printf("m=%-4lld", static_cast<long long>(m));
      row(times.front());
      std::printf(" | median");
      row(times[times.size() / 2]);
      std::printf("  %s\n", plans.front().choice(m).impl.c_str());
    }
  }
}
