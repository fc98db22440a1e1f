#include "nibble/bench.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <numeric>

#include "base/thread_pool.h"
#include "cases/case_file.h"
#include "cases/inputs.h"
#include "dispatch/ops.h"
#include "dispatch/tables.h"
#include "formats/scale_layout.h"

namespace nibble {
namespace {

using cases::CaseRow;

constexpr int kRepeats = 9;
constexpr double kSecondsPerRepeat = 0.02;
// More than the last-level cache of the machines this runs on.
constexpr size_t kRotatedBytes = size_t{256} << 20;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

BenchRow new_row(std::string_view op, std::string_view impl, std::string_view unit,
                 std::string desc = {}) {
  BenchRow row;
  row.op = op;
  row.impl = impl;
  row.unit = unit;
  row.desc = std::move(desc);
  return row;
}

// Fills the times of a row from repeats of a loop over run(i), i counting on.
template <class Run>
void time_runs(BenchRow& row, const Run& run) {
  int64_t i = 0;
  const double first = now();
  run(i++);
  const int64_t loops = std::clamp<int64_t>(
      static_cast<int64_t>(kSecondsPerRepeat / std::max(now() - first, 1e-7)), 1, 100'000);
  std::vector<double> seconds;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    const double start = now();
    for (int64_t loop = 0; loop < loops; ++loop) run(i++);
    seconds.push_back((now() - start) / static_cast<double>(loops));
  }
  std::sort(seconds.begin(), seconds.end());
  row.seconds = seconds[kRepeats / 2];
  row.fastest = seconds.front();
  row.slowest = seconds.back();
}

bool wanted(std::string_view impl, std::string_view filter) {
  if (impl.find(filter) == std::string_view::npos) return false;
  return !impl.starts_with("ref_") || filter.starts_with("ref");
}

}  // namespace

double bench_read(const Device& device, const BenchSink& sink) {
  const std::vector<uint64_t> memory(kRotatedBytes / sizeof(uint64_t), 1);
  std::vector<uint64_t> sums(device.info().threads * 8);  // a cache line each
  BenchRow row = new_row("read", "plain_read", "GB/s");
  row.bytes = double{kRotatedBytes};
  row.desc = fmt::format("{} MiB, {} threads", kRotatedBytes >> 20, device.info().threads);
  time_runs(row, [&](int64_t) {
    device.pool().run([&](int worker) {
      const size_t part = memory.size() / device.info().threads;
      const uint64_t* begin = memory.data() + worker * part;
      sums[worker * 8] = std::accumulate(begin, begin + part, uint64_t{0});
    });
  });
  row.rate = row.bytes / row.seconds / 1e9;
  sink(row);
  return row.rate;
}

void bench_gemm(const Device& device, std::string_view filter, const BenchSink& sink) {
  const double roof = bench_read(device, sink);
  for (const CaseRow& c : cases::builtin_cases("bench_gemm")) {
    std::mt19937 random(c.seed());
    const cases::RandomWeight weight(c.format("weight"), c.integer("n"), c.integer("k"), 1, random);
    const int64_t m = c.integer("m");
    const std::vector<float> a = cases::random_values(m * weight.tensor.k, random);
    std::vector<float> d(m * weight.tensor.n);
    for (const WeightLayoutImpl& layout : weight_layouts()) {
      if (!layout.can_prepare(weight.tensor, device.info())) continue;
      // Canonical weights are views: a copy of the bytes for every turn.
      std::vector<cases::RandomWeight> copies;
      std::vector<PreparedWeight> prepared;
      for (size_t bytes = 0; bytes < kRotatedBytes; bytes += prepared.back().bytes) {
        copies.push_back(weight);
        WeightTensor& t = copies.back().tensor;
        t.codes = copies.back().codes.data();
        if (t.scales) t.scales = copies.back().scales.data();
        if (t.row_scales) t.row_scales = copies.back().row_scales.data();
        prepared.push_back(layout.prepare(t, device.stream()));
      }
      const GemmDesc desc{.m = m,
                          .n = weight.tensor.n,
                          .k = weight.tensor.k,
                          .weight = weight.tensor.format,
                          .layout = layout.layout,
                          .activation = c.activation("activation")};
      for (const GemmImpl& impl : impls<GemmImpl>()) {
        if (!wanted(impl.name, filter) || !impl.can_implement(desc, device.info())) continue;
        const KernelConfig config =
            impl.candidates ? impl.candidates(desc, device.info())[0] : KernelConfig{};
        if (impl.workspace_bytes) {
          device.reserve_workspace(impl.workspace_bytes(desc, config, device.info()));
        }
        BenchRow row = new_row("gemm", impl.name, "", to_string(desc));
        const ThreadPool::Active active(device.pool());
        time_runs(row, [&](int64_t i) {
          GemmArgs args;
          args.desc = desc;
          args.a = {const_cast<float*>(a.data()), DType::kF32, m, desc.k, desc.k};
          args.b = &prepared[i % prepared.size()];
          args.d = {d.data(), DType::kF32, m, desc.n, desc.n};
          args.workspace = device.workspace();
          impl.launch(args, config, device.stream());
        });
        row.bytes = static_cast<double>(prepared[0].bytes);
        const bool decode = m <= 8;  // bound by memory; above, by arithmetic
        row.unit = decode ? "GB/s" : "GMAC/s";
        row.rate =
            (decode ? row.bytes : static_cast<double>(m * desc.n * desc.k)) / row.seconds / 1e9;
        row.share = decode ? row.rate / roof : 0;
        sink(row);
      }
    }
  }
}

void bench_quantize(const Device& device, std::string_view filter, const BenchSink& sink) {
  const double roof = bench_read(device, sink);
  for (const CaseRow& c : cases::builtin_cases("bench_quantize")) {
    QuantizeDesc desc{.format = c.format("format"),
                      .src_type = c.dtype("src"),
                      .layout = c.layout("layout"),
                      .m = c.integer("m"),
                      .k = c.integer("k")};
    for (const auto method :
         {QuantizeMethod::kRtn, QuantizeMethod::kMse, QuantizeMethod::kFourOverSix}) {
      if (c.text("method") == to_string(method)) desc.method = method;
    }
    // Values of a bf16 normal distribution, whatever the source type: only the bits' spread
    // matters.
    std::mt19937 random(c.seed());
    const cases::RandomWeight source(desc.src_type == DType::kF16    ? WeightFormat::kF16
                                     : desc.src_type == DType::kBF16 ? WeightFormat::kBF16
                                                                     : WeightFormat::kF32,
                                     desc.m, desc.k, 1, random);
    const size_t copies = kRotatedBytes / source.codes.size() + 1;
    std::vector<std::vector<uint8_t>> sources(copies, source.codes);
    std::vector<uint8_t> codes(desc.m * desc.k / 2);
    std::vector<uint8_t> scales(scale_bytes(desc.layout, desc.m, desc.k / block_size(desc.format)));
    for (const QuantizeImpl& impl : impls<QuantizeImpl>()) {
      if (!wanted(impl.name, filter) || !impl.can_implement(desc, device.info())) continue;
      const KernelConfig config =
          impl.candidates ? impl.candidates(desc, device.info())[0] : KernelConfig{};
      BenchRow row = new_row("quantize", impl.name, "GB/s", to_string(desc));
      time_runs(row, [&](int64_t i) {
        QuantizeArgs args;
        args.desc = desc;
        args.src = {sources[i % copies].data(), desc.src_type, desc.m, desc.k, desc.k};
        args.global_decode_scale = 0.01f;
        args.codes = codes.data();
        args.scales = scales.data();
        impl.launch(args, config, device.stream());
      });
      row.bytes = static_cast<double>(source.codes.size());
      row.rate = row.bytes / row.seconds / 1e9;
      row.share = row.rate / roof;
      sink(row);
    }
  }
}

void bench_model(const std::filesystem::path& dir, const Device& device,
                 const BenchModelOptions& options, const BenchSink& sink) {
  constexpr int64_t kPrefix = 16;
  BenchRow load = new_row("load", dir.string(), "s");
  const double start = now();
  Engine engine = Engine::load(dir, device, options.engine);
  load.seconds = load.fastest = load.slowest = load.rate = now() - start;
  sink(load);

  std::mt19937 random(1);
  const auto random_tokens = [&](int64_t count) {
    std::vector<int32_t> tokens(count);
    for (int32_t& t : tokens) t = static_cast<int32_t>(random() % engine.vocab_size());
    return tokens;
  };
  const auto measure = [&](const char* op, int64_t tokens, const auto& run) {
    if (tokens == 0) return;
    BenchRow row = new_row(op, dir.string(), "tokens/s", fmt::format("{} tokens", tokens));
    std::vector<double> seconds;
    for (int i = 0; i < options.repeats; ++i) seconds.push_back(run());
    std::sort(seconds.begin(), seconds.end());
    row.seconds = seconds[seconds.size() / 2];
    row.fastest = seconds.front();
    row.slowest = seconds.back();
    row.rate = static_cast<double>(tokens) / row.seconds;
    sink(row);
  };
  const std::vector<int32_t> prompt = random_tokens(std::max(options.prompt, kPrefix));
  measure("prompt", options.prompt, [&] {
    engine.truncate(0);
    const double begin = now();
    engine.forward(prompt);
    return now() - begin;
  });
  measure("decode", options.decode, [&] {
    engine.truncate(0);
    engine.forward(std::span(prompt).first(kPrefix));
    const double begin = now();
    for (int64_t i = 0; i < options.decode; ++i) engine.forward(random_tokens(1));
    return now() - begin;
  });
}

}  // namespace nibble
