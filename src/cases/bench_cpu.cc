#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "base/host_arena.h"
#include "base/thread_pool.h"
#include "cases/inputs.h"
#include "cases/timer.h"
#include "dispatch/ops.h"
#include "nibble/bench.h"
#include "nibble/gemm.h"

namespace nibble {
namespace {

using cases::Launch;

// SmolLM2-135M: q|k|v, o, gate|up, down.
struct Shape {
  int64_t n, k;
};
constexpr Shape kLayer[] = {{960, 576}, {576, 576}, {3072, 576}, {576, 1536}};
constexpr int64_t kMaxSide = 3072;

constexpr WeightFormat kFormats[] = {WeightFormat::kNvfp4, WeightFormat::kMxfp4, WeightFormat::kF8};

// A model's layers of one format; a launch is one layer, the next one every time.
class Layers {
 public:
  Layers(WeightFormat format, int64_t max_m, size_t bytes, const Device& device) {
    const ActivationMode activation =
        is_fp4(format) ? default_activation(device.info()) : ActivationMode::k16Bit;
    std::mt19937 random(1);
    std::vector<cases::RandomWeight> weights;
    for (const Shape& s : kLayer) {
      weights.push_back(cases::typical_weight(format, s.n, s.k, random));
    }
    a_ = cases::random_values(max_m * kMaxSide, random);
    d_.resize(a_.size());
    for (size_t total = 0; total < bytes; total += layer_bytes_) {
      layer_bytes_ = 0;
      auto& layer = layers_.emplace_back();
      for (const auto& weight : weights) {
        const LinearWeight prepared = prepare(cases::owned_copy(weight), device, activation);
        layer_bytes_ += prepared.bytes();
        layer.emplace_back(prepared, device, GemmOptions{.max_m = max_m, .activation = activation});
      }
    }
  }

  Launch launch(int64_t m) {
    return [this, m](int64_t i) {
      for (const GemmPlan& plan : layers_[static_cast<size_t>(i) % layers_.size()]) {
        plan.run(a_.data(), plan.weight().k(), d_.data(), plan.weight().n(), m);
      }
    };
  }
  std::string impl(int64_t m) const { return layers_[0].back().choice(m).impl; }
  double bytes() const { return static_cast<double>(layer_bytes_); }

 private:
  std::vector<std::vector<GemmPlan>> layers_;
  std::vector<float> a_, d_;
  size_t layer_bytes_ = 0;
};

double macs_of_a_layer() {
  int64_t macs = 0;
  for (const Shape& s : kLayer) macs += s.n * s.k;
  return static_cast<double>(macs);
}

// bf16 matrices in turns.
class Sources {
 public:
  Sources(size_t bytes, const Device& device) : device_(device) {
    std::mt19937 random(1);
    const cases::RandomWeight source(WeightFormat::kBF16, kRows, kCols, 1, random);
    sources_.assign(bytes / source.codes.size() + 1, source.codes);
    codes_.resize(kRows * kCols / 2);
    scales_.resize(kRows * kCols / 16);
  }
  Launch launch(WeightFormat format, QuantizeMethod method) {
    return [=, this](int64_t i) {
      const auto& source = sources_[static_cast<size_t>(i) % sources_.size()];
      QuantizeArgs args;
      args.desc.format = format;
      args.desc.method = method;
      args.desc.src_type = DType::kBF16;
      args.desc.m = kRows;
      args.desc.k = kCols;
      args.src = {const_cast<uint8_t*>(source.data()), DType::kBF16, kRows, kCols, kCols};
      args.global_decode_scale = 0.01f;
      args.codes = codes_.data();
      args.scales = scales_.data();
      quantize(args, device_);
    };
  }
  double bytes() const { return static_cast<double>(sources_[0].size()); }

 private:
  static constexpr int64_t kRows = 1024, kCols = 4096;
  const Device& device_;
  std::vector<std::vector<uint8_t>> sources_;
  std::vector<uint8_t> codes_, scales_;
};

}  // namespace

void bench_cpu(const Device& device, const BenchCpuOptions& options, const BenchSink& sink) {
  const size_t bytes = options.rotated_bytes;
  const auto plain = std::make_unique_for_overwrite<uint8_t[]>(bytes);
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto first = (reinterpret_cast<uintptr_t>(plain.get()) + page - 1) / page * page;
  // Where huge pages are the system's default as well.
  ::madvise(reinterpret_cast<void*>(first), (bytes - page) / page * page, MADV_NOHUGEPAGE);
  const auto huge = HostArena().allocate(bytes);
  std::fill_n(plain.get(), bytes, uint8_t{1});
  std::fill_n(huge.get(), bytes, uint8_t{1});

  std::vector<BenchRow> rows;
  std::vector<Launch> launches;
  const auto add = [&](std::string op, std::string impl, std::string desc, double row_bytes,
                       const Launch& launch) {
    BenchRow& row = rows.emplace_back();
    row.op = std::move(op);
    row.impl = std::move(impl);
    row.desc = std::move(desc);
    row.bytes = row_bytes;
    launches.push_back(launch);
  };
  add("read", "plain_read", "plain pages", static_cast<double>(bytes),
      cases::reading(plain.get(), bytes, device));
  add("read", "plain_read", "huge pages", static_cast<double>(bytes),
      cases::reading(huge.get(), bytes, device));
  std::vector<std::unique_ptr<Layers>> layers;
  for (const WeightFormat format : kFormats) {
    layers.push_back(std::make_unique<Layers>(format, options.prompt, bytes, device));
    Layers& l = *layers.back();
    add("decode", l.impl(1), fmt::format("{} m=1", to_string(format)), l.bytes(), l.launch(1));
    add("prompt", l.impl(options.prompt), fmt::format("{} m={}", to_string(format), options.prompt),
        l.bytes(), l.launch(options.prompt));
  }
  add("null", rows[2].impl, rows[2].desc, rows[2].bytes, launches[2]);
  Sources sources(bytes, device);
  for (const auto& [format, method] : {std::pair(WeightFormat::kNvfp4, QuantizeMethod::kRtn),
                                       std::pair(WeightFormat::kNvfp4, QuantizeMethod::kMse),
                                       std::pair(WeightFormat::kMxfp4, QuantizeMethod::kRtn)}) {
    add("quantize", "", fmt::format("bf16 to {} {}", to_string(format), to_string(method)),
        sources.bytes(), sources.launch(format, method));
  }

  const ThreadPool::Active active(device.pool());
  const std::vector<cases::Times> times = cases::time_in_turns(device, launches);
  for (size_t i = 0; i < rows.size(); ++i) {
    BenchRow& row = rows[i];
    row.seconds = times[i].median;
    row.fastest = times[i].fastest;
    row.slowest = times[i].slowest;
    if (row.op == "prompt") {  // bound by arithmetic
      row.unit = "GMAC/s";
      row.rate = macs_of_a_layer() * static_cast<double>(options.prompt) / row.seconds / 1e9;
    } else {
      const double gb = static_cast<double>(bytes) / 1e9;
      row.unit = "GB/s";
      row.rate = row.bytes / row.seconds / 1e9;
      row.share = row.rate / (gb / times[0].median);
      row.share_of_huge = row.rate / (gb / times[1].median);
    }
    sink(row);
  }
}

}  // namespace nibble
