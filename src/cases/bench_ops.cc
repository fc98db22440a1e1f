#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/cuda.h"
#include "cases/case_file.h"
#include "cases/gemm_timing.h"
#include "cases/inputs.h"
#include "dispatch/gemm_plan.h"
#include "dispatch/select.h"
#include "nibble/bench.h"

namespace nibble {
namespace {

using cases::CaseRow;
using cases::Launch;
using cases::TimedGemm;
using cases::Times;

// More than the caches of the machines this runs on.
constexpr size_t kRotatedBytes = size_t{300} << 20;
// Up to as many rows of activations a GEMM is bound by memory; above, by arithmetic.
constexpr int64_t kDecodeRows = 16;

bool is_cuda(const Device& device) { return device.info().kind == DeviceKind::kCuda; }

bool wanted(std::string_view impl, std::string_view filter) {
  if (impl.find(filter) == std::string_view::npos) return false;
  return !impl.starts_with("ref_") || filter.starts_with("ref");
}

void set_times(BenchRow& row, const Times& t) {
  row.seconds = t.median;
  row.fastest = t.fastest;
  row.slowest = t.slowest;
}

// Memory of the device's, filled with `host` again and again.
class Rotated {
 public:
  Rotated(const std::vector<uint8_t>& host, size_t copies, const Device& device)
      : bytes_(host.size()), copies_(copies) {
    if (is_cuda(device)) {
      buffer_ = cuda::Buffer(device.info().index, bytes_ * copies_);
    } else {
      memory_.resize(bytes_ * copies_);
    }
    for (size_t i = 0; i < copies_; ++i) {
      if (is_cuda(device)) {
        cuda::copy(buffer_.data() + i * bytes_, host.data(), bytes_, device.stream().cuda);
      } else {
        std::ranges::copy(host, memory_.begin() + static_cast<std::ptrdiff_t>(i * bytes_));
      }
    }
    device.synchronize();
  }
  uint8_t* operator[](int64_t i) const {
    return (buffer_.data() ? buffer_.data() : const_cast<uint8_t*>(memory_.data())) +
           static_cast<size_t>(i) % copies_ * bytes_;
  }

 private:
  size_t bytes_, copies_;
  cuda::Buffer buffer_;
  std::vector<uint8_t> memory_;
};

// What a chip's memory gives: reads by every thread of a CPU; on a CUDA device copies, whose bytes
// count twice.
double bench_memory(const Device& device, const BenchSink& sink) {
  BenchRow row;
  row.op = "read";
  row.unit = "GB/s";
  row.desc = fmt::format("{} MiB", kRotatedBytes >> 20);
  row.bytes = double{kRotatedBytes};
  Rotated memory(std::vector<uint8_t>(kRotatedBytes, 1), is_cuda(device) ? 2 : 1, device);
  if (is_cuda(device)) {
    row.impl = "device_copy";
    row.bytes *= 2;
    set_times(row, cases::time_one(device, [&](int64_t i) {
                cuda::copy(memory[i], memory[i + 1], kRotatedBytes, device.stream().cuda);
              }));
  } else {
    row.impl = "plain_read";
    set_times(row, cases::time_one(device, cases::reading(memory[0], kRotatedBytes, device)));
  }
  row.rate = row.bytes / row.seconds / 1e9;
  sink(row);
  return row.rate;
}

// The best configuration of every implementation that takes desc, by its own estimate.
std::vector<Selection<GemmImpl>> contenders(const GemmDesc& desc, std::string_view filter,
                                            const Device& device) {
  std::vector<Selection<GemmImpl>> all;
  for (const GemmImpl& impl : impls<GemmImpl>()) {
    if (!wanted(impl.name, filter) || !impl.can_implement(desc, device.info())) continue;
    Selection<GemmImpl>& own = all.emplace_back();
    if (impl.estimate_us) {
      best_config(impl, desc, device.info(), own);
    } else {
      own.impl = &impl;
      own.config = candidates_of(impl, desc, device.info())[0];
    }
  }
  return all;
}

// The rows of one shape: its contenders, one at least, take turns, the first of them twice.
void bench_gemm_row(const GemmDesc& desc, const TimedGemm& gemm,
                    std::vector<Selection<GemmImpl>> all, const Device& device, double roof,
                    const BenchSink& sink) {
  all.insert(all.begin() + 1, all[0]);
  std::vector<Launch> launches;
  for (const auto& s : all) launches.push_back(gemm.launch(*s.impl, s.config, desc));
  const std::vector<Times> times = cases::time_in_turns(device, launches);
  for (size_t i = 0; i < all.size(); ++i) {
    BenchRow row;
    row.op = i == 1 ? "null" : "gemm";
    row.impl = all[i].impl->name;
    row.desc = fmt::format("{} [{}]", to_string(desc), to_string(all[i].config));
    set_times(row, times[i]);
    row.bytes = gemm.weight_bytes();
    row.flops = 2.0 * static_cast<double>(desc.m * desc.n * desc.k);
    const bool decode = desc.m <= kDecodeRows;
    row.unit = decode ? "GB/s" : "TFLOP/s";
    row.rate = decode ? row.bytes / row.seconds / 1e9 : row.flops / row.seconds / 1e12;
    row.share = decode ? row.rate / roof : 0;
    row.predicted = all[i].impl->estimate_us ? 1e-6 * all[i].estimate_us : 0;
    sink(row);
  }
}

// A row as it is, and where the chip multiplies FP4 also with activations that the GEMM quantizes
// and that are given so, their scales in the best order that something takes.
std::vector<GemmDesc> variants(const GemmDesc& desc, const Device& device) {
  std::vector<GemmDesc> all = {desc};
  if (!has_native_fp4(device.info().sm) || !is_fp4(desc.weight)) return all;
  if (desc.activation == ActivationMode::kFp4) return all;
  GemmDesc fp4 = desc;
  fp4.activation = ActivationMode::kFp4;
  all.push_back(fp4);
  fp4.a_type = DType::kU8;
  for (const ScaleLayout layout : preferred_layouts(desc.m)) {
    fp4.a_layout = layout;
    if (contenders(fp4, "", device).empty()) continue;
    all.push_back(fp4);
    break;
  }
  return all;
}

struct GemmRow {
  GemmShape shape;
  ActivationMode activation;
};

std::vector<GemmRow> gemm_rows(const BenchGemmOptions& options, const Device& device) {
  std::vector<GemmRow> rows;
  for (const GemmShape& s : options.shapes) {
    NIBBLE_CHECK(s.m > 0 && s.n > 0 && s.k > 0, ErrorCode::kInvalidArgument,
                 "bench: m, n and k must be at least 1, found m={} n={} k={}", s.m, s.n, s.k);
    NIBBLE_CHECK(!is_fp4(s.weight) || s.k % block_size(s.weight) == 0, ErrorCode::kInvalidArgument,
                 "bench: k must be a multiple of {} for {}, found {}", block_size(s.weight),
                 to_string(s.weight), s.k);
    rows.push_back({s, default_activation(device.info())});
  }
  if (!rows.empty()) return rows;
  for (const CaseRow& row :
       cases::builtin_cases(is_cuda(device) ? "bench_gemm_cuda" : "bench_gemm")) {
    rows.push_back({{row.integer("m"), row.integer("n"), row.integer("k"), row.format("weight")},
                    row.activation("activation")});
  }
  return rows;
}

// What the host spends: on choosing, when a plan is made, and on calls, which are put in order and
// not waited for. To be measured before anything has launched the GEMMs' kernels.
void bench_host(const TimedGemm::Options& options, DType type, const Device& device,
                const BenchSink& sink) {
  std::mt19937 random(1);
  const cases::RandomWeight source(options.weight, options.n, options.k, 1, random);
  const LinearWeight weight =
      prepare(cases::owned_copy(source), device, default_activation(device.info()));
  const GemmOptions plan_options{.max_m = options.max_m,
                                 .a = type,
                                 .d = type,
                                 .activation = default_activation(device.info())};
  const auto add = [&](std::string what, std::vector<double> seconds) {
    std::sort(seconds.begin(), seconds.end());
    BenchRow row;
    row.op = "host";
    row.impl = std::move(what);
    row.desc = fmt::format("n={} k={} m<={}", options.n, options.k, options.max_m);
    set_times(row, {seconds[seconds.size() / 2], seconds.front(), seconds.back()});
    row.rate = row.seconds * 1e6;
    row.unit = "us";
    sink(row);
  };
  using Clock = std::chrono::steady_clock;
  const auto seconds_of = [](const auto& work) {
    const auto begin = Clock::now();
    work();
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  constexpr int kRepeats = 9, kCalls = 64;
  const auto elements = [&](int64_t columns) {
    return std::vector<uint8_t>(static_cast<size_t>(options.max_m * columns) * size_of(type));
  };
  const Rotated a(elements(options.k), 1, device), d(elements(options.n), 1, device);
  std::optional<GemmPlan> plan;
  add("making the first plan", {seconds_of([&] { plan.emplace(weight, device, plan_options); })});
  const auto run = [&](int64_t m) { plan->run(a[0], options.k, d[0], options.n, m); };
  // A call right behind another kernel, until it returns and until its result is there: behind a
  // pause of milliseconds, a launch takes 20 us more.
  const auto call_behind = [&](int64_t m) {
    run(options.max_m);
    device.synchronize();
    double call = 0;
    const double result = seconds_of([&] {
      call = seconds_of([&] { run(m); });
      device.synchronize();
    });
    return std::pair(call, result);
  };
  constexpr int kSettled = 90, kAll = 100;
  constexpr int64_t kRows[] = {1, 16, 64};
  for (const int64_t m : kRows) {
    std::vector<double> calls, results;
    for (int i = 0; i < kAll; ++i) {
      const auto [call, result] = call_behind(m);
      calls.push_back(call);
      results.push_back(result);
    }
    const auto first_and_settled = [&](const char* what, const std::vector<double>& seconds) {
      add(fmt::format("first {}, m={}", what, m), {seconds.front()});
      add(fmt::format("hundredth {}, m={}", what, m), {seconds.begin() + kSettled, seconds.end()});
    };
    first_and_settled("plan.run", calls);
    first_and_settled("plan.run until its result", results);
  }
  std::vector<double> making, running;
  for (int i = 0; i < kRepeats; ++i) {
    making.push_back(seconds_of([&] { GemmPlan(weight, device, plan_options); }));
  }
  add("making a plan", making);
  // What a call takes for the host's cold caches, without being the first.
  for (const int64_t m : kRows) {
    add(fmt::format("plan.run until its result behind {} plans, m={}", kRepeats, m),
        {call_behind(m).second});
  }
  for (int i = 0; i < kRepeats; ++i) {
    device.synchronize();
    running.push_back(seconds_of([&] {
                        for (int call = 0; call < kCalls; ++call) run(1);
                      }) /
                      kCalls);
  }
  device.synchronize();
  add("plan.run, m=1", running);
}

}  // namespace

void bench_gemm(const Device& device, const BenchGemmOptions& options, const BenchSink& sink) {
  const std::vector<GemmRow> rows = gemm_rows(options, device);
  const double roof = bench_memory(device, sink);
  const DType type = is_cuda(device) ? DType::kBF16 : DType::kF32;
  for (auto first = rows.begin(); first != rows.end();) {
    const auto end = std::find_if_not(first, rows.end(), [&](const GemmRow& row) {
      return row.shape.n == first->shape.n && row.shape.k == first->shape.k &&
             row.shape.weight == first->shape.weight;
    });
    const GemmShape& weights = first->shape;
    TimedGemm::Options timed{.weight = weights.weight, .n = weights.n, .k = weights.k};
    for (auto row = first; row != end; ++row) timed.max_m = std::max(timed.max_m, row->shape.m);
    if (first == rows.begin() && is_cuda(device)) bench_host(timed, type, device, sink);
    WeightTensor header;
    header.format = weights.weight;
    header.n = weights.n;
    header.k = weights.k;
    for (const WeightLayoutImpl& layout : weight_layouts()) {
      if (!layout.can_prepare(header, device.info())) continue;
      std::optional<TimedGemm> gemm;  // where something is to be timed
      for (auto row = first; row != end; ++row) {
        const GemmDesc desc{.m = row->shape.m,
                            .n = weights.n,
                            .k = weights.k,
                            .weight = weights.weight,
                            .layout = layout.layout,
                            .activation = row->activation,
                            .a_type = type,
                            .d_type = type};
        for (const GemmDesc& variant : variants(desc, device)) {
          std::vector<Selection<GemmImpl>> all = contenders(variant, options.filter, device);
          if (all.empty()) continue;
          if (!gemm) gemm.emplace(timed, type, layout, device);
          bench_gemm_row(variant, *gemm, std::move(all), device, roof, sink);
        }
      }
    }
    first = end;
  }
}

void bench_quantize(const Device& device, std::string_view filter, const BenchSink& sink) {
  const double roof = bench_memory(device, sink);
  for (const CaseRow& c :
       cases::builtin_cases(is_cuda(device) ? "bench_quantize_cuda" : "bench_quantize")) {
    QuantizeDesc desc;
    desc.format = c.format("format");
    desc.src_type = c.dtype("src");
    desc.layout = c.layout("layout");
    desc.m = c.integer("m");
    desc.k = c.integer("k");
    for (const auto method :
         {QuantizeMethod::kRtn, QuantizeMethod::kMse, QuantizeMethod::kFourOverSix}) {
      if (c.text("method") == to_string(method)) desc.method = method;
    }
    // Values of a normal distribution of bf16, whatever the source type: only the bits' spread
    // matters.
    std::mt19937 random(c.seed());
    const cases::RandomWeight source(desc.src_type == DType::kF16    ? WeightFormat::kF16
                                     : desc.src_type == DType::kBF16 ? WeightFormat::kBF16
                                                                     : WeightFormat::kF32,
                                     desc.m, desc.k, 1, random);
    const double source_bytes = static_cast<double>(source.codes.size());
    Rotated sources(source.codes, kRotatedBytes / source.codes.size() + 1, device);
    const std::vector<uint8_t> codes(static_cast<size_t>(desc.m * desc.k / 2));
    const std::vector<uint8_t> scales(static_cast<size_t>(quantize_scale_bytes(desc)));
    Rotated codes_out(codes, kRotatedBytes / codes.size() + 1, device);
    Rotated scales_out(scales, kRotatedBytes / codes.size() + 1, device);
    for (const QuantizeImpl& impl : impls<QuantizeImpl>()) {
      if (!wanted(impl.name, filter) || !impl.can_implement(desc, device.info())) continue;
      const KernelConfig config = candidates_of(impl, desc, device.info())[0];
      if (impl.workspace_bytes) {
        device.reserve_workspace(impl.workspace_bytes(desc, config, device.info()));
      }
      const Launch launch = [&](int64_t i) {
        QuantizeArgs args;
        args.desc = desc;
        args.workspace = device.workspace();
        args.src = {sources[i], desc.src_type, desc.m, desc.k, desc.k};
        args.global_decode_scale = 0.01f;
        args.codes = codes_out[i];
        args.scales = scales_out[i];
        impl.launch(args, config, device.stream());
      };
      // Twice: the null test.
      const std::vector<Times> times =
          cases::time_in_turns(device, std::vector<Launch>{launch, launch});
      for (size_t i = 0; i < times.size(); ++i) {
        BenchRow row;
        row.op = i == 1 ? "null" : "quantize";
        row.impl = impl.name;
        row.desc = to_string(desc);
        set_times(row, times[i]);
        row.bytes = source_bytes;
        // A CUDA device's writes count, as they do in the copy that it is compared with.
        if (is_cuda(device)) row.bytes += static_cast<double>(codes.size() + scales.size());
        row.rate = row.bytes / row.seconds / 1e9;
        row.unit = "GB/s";
        row.share = row.rate / roof;
        sink(row);
      }
    }
  }
}

}  // namespace nibble
