// Quantizing on a CUDA device against the best plain copy of the same bytes, over 99 sizes:
//   bench_cuda_quantize [--out FILE] [--summary FILE] [--quick] [--rms-norm M,...] [--commit HASH]
//                       [--date DAY]
// --out gets every size; --summary the table of docs/quantize.md: the 99 sizes by their number of
// elements, then everything else at the largest of its sizes. --rms-norm: instead of all these, M
// rows of RMSNorm at the hidden sizes of models, then those with a residual.
// One harness for both: CUDA graphs over buffers that rotate through more than L2, medians, the
// card rested before each (launch_graph.h); "sustained" without rests, of sizes that take it to its
// power limit. "null" times the same kernel twice: what differs by less is noise. That the
// quantizer's bytes are right is for `nibble selftest --device cuda` to say.
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/cuda.h"
#include "base/cuda_check.h"
#include "bench/arguments.h"
#include "bench/copy.cuh"
#include "bench/launch_graph.h"
#include "bench/quantize_summary.h"
#include "dispatch/cpu_features.h"
#include "dispatch/tables.h"
#include "formats/float16.h"
#include "formats/scale_layout.h"

namespace nibble {
namespace {

constexpr size_t kRotatedBytes = size_t{200} << 20;  // over three times H200's L2
constexpr size_t kMaxLaunches = 2000;
// At least twenty launches, of long ones as many as take a few milliseconds, but four.
constexpr int kMinLaunches = 20, kMinLongLaunches = 4;
constexpr double kBytesPerUs = 4e6, kGraphUs = 4000.0;
constexpr int64_t kSustained = int64_t{1} << 26;  // elements from which on sustained times are told
// Of the largest magnitudes that the inputs hold: one that saturates takes a slower path.
constexpr float kDecodeScale = 0.003f;
constexpr float kSiluMulDecodeScale = 0.02f;
constexpr size_t kAlignment = 1024;
constexpr int64_t kCols = 8192;  // k of what is timed beside the 99 sizes, and of RMSNorm besides:
constexpr int64_t kHiddenSizes[] = {1536, 2560, 3072, 3584, 4096, 5120, 7168};

size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// Memory that every size uses a part of; the sources hold bf16 normals (any bits serve a copy).
struct Pool {
  cuda::Buffer src, out;
  size_t src_bytes, out_bytes;
};

using Launch = std::function<void(const uint8_t* src, uint8_t* codes, uint8_t* scales, Stream)>;

// One case, and the bytes that it moves once each.
struct Size {
  QuantizeDesc desc;
  size_t src_bytes;       // what is read; a residual lies behind src
  size_t residual_bytes;  // of src_bytes; written as well
  size_t codes_bytes, scale_bytes;
  double bytes() const {
    return static_cast<double>(src_bytes + residual_bytes + codes_bytes + scale_bytes);
  }
  int64_t units() const { return desc.m * desc.k / 16; }
};

Size size_of_case(const QuantizeDesc& d) {
  const size_t matrix = static_cast<size_t>(d.m * d.k) * size_of(d.src_type);
  const bool twice = d.input == QuantizeInput::kSiluMul || d.has_residual;
  return {d, twice ? 2 * matrix : matrix, d.has_residual ? matrix : 0,
          static_cast<size_t>(d.m * d.k / 2), static_cast<size_t>(quantize_scale_bytes(d))};
}

// Copies of one size's buffers, which launches take in turn, and how many launches a graph has.
struct Rotation {
  size_t out, sets;
  int launches;
};
Rotation rotation_of(const Size& size, const Pool& pool) {
  const size_t out = aligned(size.codes_bytes) + aligned(size.scale_bytes);
  const size_t set = aligned(size.src_bytes) + out;
  size_t sets = std::max<size_t>(2, kRotatedBytes / set + 1);
  sets = std::min({sets, pool.src_bytes / aligned(size.src_bytes), pool.out_bytes / out});
  const double us = size.bytes() / kBytesPerUs;
  const int fewest = std::clamp(static_cast<int>(kGraphUs / us), kMinLongLaunches, kMinLaunches);
  return {out, sets, std::max(fewest, static_cast<int>(std::min(sets, kMaxLaunches)))};
}

struct Bench {
  Device device;
  Pool pool;
  const QuantizeImpl* impl;
  cuda::Buffer floats, workspace;

  Launch quantize(const Size& size, const KernelConfig& config, bool pdl) const {
    return [=, this](const uint8_t* src, uint8_t* codes, uint8_t* scales, Stream stream) {
      const QuantizeDesc& d = size.desc;
      const int64_t cols = d.input == QuantizeInput::kSiluMul ? 2 * d.k : d.k;
      auto* data = const_cast<uint8_t*>(src);
      QuantizeArgs args;
      args.desc = d;
      args.src = {data, d.src_type, d.m, cols, cols};
      args.src_scale = 0.01f;
      args.global_decode_scale =
          d.input == QuantizeInput::kSiluMul ? kSiluMulDecodeScale : kDecodeScale;
      args.scale_memory = const_cast<float*>(weights());
      args.codes = codes;
      args.scales = scales;
      args.residual = {data + size.residual_bytes, d.src_type, d.m, d.k, d.k};
      args.norm_weight = weights();
      args.norm_eps = 1e-5f;
      args.workspace = workspace.get();
      stream.pdl = pdl;
      impl->launch(args, config, stream);
    };
  }

  Launch copy(int kernel, const Size& size) const {
    return [=](const uint8_t* src, uint8_t* codes, uint8_t* scales, Stream stream) {
      bench::launch_copy(
          kernel, static_cast<int>(size.src_bytes / size.units()),
          {src, codes, scales, size.units(), static_cast<int64_t>(size.scale_bytes),
           size.residual_bytes ? const_cast<uint8_t*>(src) + size.residual_bytes : nullptr},
          stream);
    };
  }

  // Any positive floats serve as norm weights and global scales.
  const float* weights() const { return static_cast<const float*>(floats.get()); }

  nlohmann::ordered_json run(const QuantizeDesc& desc, bool all_configs) const {
    const Size size = size_of_case(desc);
    const Stream stream = device.stream();
    constexpr std::string_view kInputs[] = {"plain", "silu_mul", "rms_norm"};
    const std::string input = fmt::format("{}{}{}{}", desc.has_residual ? "add_" : "",
                                          kInputs[static_cast<int>(desc.input)],
                                          desc.global == GlobalScale::kComputed ? " +amax" : "",
                                          desc.experts ? fmt::format(" x{}", desc.experts) : "");
    nlohmann::ordered_json row = {{"m", desc.m},
                                  {"k", desc.k},
                                  {"src", to_string(desc.src_type)},
                                  {"format", to_string(desc.format)},
                                  {"layout", to_string(desc.layout)},
                                  {"input", input},
                                  {"bytes", size.bytes()}};
    const Rotation rotation = rotation_of(size, pool);
    const auto turns = [&](const Launch& launch) {
      return [&, launch](int i) {
        const size_t turn = static_cast<size_t>(i) % rotation.sets;
        uint8_t* codes = pool.out.data() + turn * rotation.out;
        launch(pool.src.data() + turn * aligned(size.src_bytes), codes,
               codes + aligned(size.codes_bytes), stream);
      };
    };
    const auto configs = impl->candidates(desc, device.info());
    // The copies, ours, that again and with programmatic dependent launch.
    std::vector<std::function<void(int)>> contenders;
    for (int kernel = 0; kernel < bench::kCopyKernels; ++kernel) {
      contenders.emplace_back(turns(copy(kernel, size)));
    }
    const auto ours = turns(quantize(size, configs[0], false));
    contenders.insert(contenders.end(), {ours, ours, turns(quantize(size, configs[0], true))});
    for (const KernelConfig& c : all_configs ? configs : std::vector<KernelConfig>{}) {
      contenders.emplace_back(turns(quantize(size, c, false)));
    }
    auto* cuda_stream = static_cast<cudaStream_t>(stream.cuda);
    const std::vector<double> times = bench::medians_us(cuda_stream, rotation.launches, contenders);
    const double* of = times.data();
    const auto best = std::min_element(of, of + bench::kCopyKernels);
    const double copy_us = *best;
    for (int kernel = 0; kernel < bench::kCopyKernels; ++kernel) {
      row["copies_us"][bench::copy_name(kernel)] = *of++;
    }
    const double us = *of++;
    row["copy_us"] = copy_us;
    row["quantize_us"] = us;
    row["null_us"] = *of++;
    row["pdl_us"] = *of++;
    row["config"] = to_string(configs[0]);
    row["ratio"] = us / copy_us;
    row["gbps"] = size.bytes() / us / 1e3;
    if (desc.m * desc.k >= kSustained) {
      const auto sustained = [&](const std::function<void(int)>& launch) {
        return bench::sustained_median_us(cuda_stream, rotation.launches, launch);
      };
      row["sustained_copy_us"] = sustained(contenders[best - times.data()]);
      row["sustained_us"] = sustained(ours);
    }
    if (all_configs) {
      for (const KernelConfig& c : configs) row["configs_us"][to_string(c)] = *of++;
    }
    fmt::print(
        "{:>7} x {:<6} {:<7} {:<6} {:<7} {:<12} copy {:>9.2f} us  quantize {:>9.2f} us ({:.3f})  "
        "pdl {:>9.2f}  null {:.3f}",
        desc.m, desc.k, to_string(desc.src_type), to_string(desc.format), to_string(desc.layout),
        input, copy_us, us, us / copy_us, row["pdl_us"].get<double>(),
        row["null_us"].get<double>() / us);
    if (row.contains("sustained_us")) {
      fmt::print("  sustained {:.3f}",
                 row["sustained_us"].get<double>() / row["sustained_copy_us"].get<double>());
    }
    if (all_configs) {
      for (const auto& [name, value] : row["configs_us"].items()) {
        fmt::print("  [{}] {:.3f}", name, value.get<double>() / copy_us);
      }
    }
    fmt::print("\n");
    std::fflush(stdout);
    return row;
  }
};

QuantizeDesc plain(int64_t m, int64_t k) {
  return {.src_type = DType::kBF16, .layout = ScaleLayout::kSwizzled128x4, .m = m, .k = k};
}

// What else there is, beside the 99 sizes.
std::vector<QuantizeDesc> variants(int64_t m, int64_t k) {
  std::vector<QuantizeDesc> all;
  const auto add = [&](auto change) {
    all.push_back(plain(m, k));
    change(all.back());
  };
  add([](QuantizeDesc& d) { d.src_type = DType::kF16; });
  add([](QuantizeDesc& d) { d.src_type = DType::kF32; });
  add([](QuantizeDesc& d) { d.src_type = DType::kF8E4M3; });
  add([](QuantizeDesc& d) { d.layout = ScaleLayout::kLinear; });
  add([](QuantizeDesc& d) { d.layout = ScaleLayout::kSwizzled8x4; });
  add([](QuantizeDesc& d) { d.format = WeightFormat::kMxfp4; });
  add([](QuantizeDesc& d) {
    d.format = WeightFormat::kMxfp4;
    d.layout = ScaleLayout::kLinear;
  });
  add([](QuantizeDesc& d) { d.global = GlobalScale::kComputed; });
  add([](QuantizeDesc& d) { d.experts = 8; });
  add([](QuantizeDesc& d) { d.input = QuantizeInput::kSiluMul; });
  add([](QuantizeDesc& d) { d.input = QuantizeInput::kRmsNorm; });
  return all;
}

void write(const std::string& path, const nlohmann::ordered_json& json) {
  if (!path.empty()) std::ofstream(path) << json.dump(1) << "\n";
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  using namespace nibble;
  std::string out, summary_out, commit = "unknown", date = "unknown";
  std::string command = "bench_cuda_quantize";
  bool quick = false;
  std::vector<int> norm_rows;
  try {
    for (int i = 1; i < argc; ++i) {
      const bool is_path =
          i > 1 && (!std::strcmp(argv[i - 1], "--out") || !std::strcmp(argv[i - 1], "--summary"));
      command += is_path ? " FILE" : std::string(" ") + argv[i];
      if (!std::strcmp(argv[i], "--quick")) quick = true;
      if (!std::strcmp(argv[i], "--out") && i + 1 < argc) out = argv[i + 1];
      if (!std::strcmp(argv[i], "--summary") && i + 1 < argc) summary_out = argv[i + 1];
      if (!std::strcmp(argv[i], "--date") && i + 1 < argc) date = argv[i + 1];
      if (!std::strcmp(argv[i], "--commit") && i + 1 < argc) commit = argv[i + 1];
      if (!std::strcmp(argv[i], "--rms-norm") && i + 1 < argc)
        norm_rows = bench::numbers_of(argv[i + 1]);
    }
    const Device device = Device::cuda();
    const auto all = impls<QuantizeImpl>();
    const auto impl = std::ranges::find(all, "cuda_quantize", &QuantizeImpl::name);
    NIBBLE_CHECK(impl != all.end(), ErrorCode::kUnsupported, "cuda_quantize is not built");
    constexpr size_t kSrc = size_t{9} << 30, kOut = size_t{5} << 30;
    const Bench bench{device,
                      {{0, kSrc}, {0, kOut}, kSrc, kOut},
                      &*impl,
                      {0, size_t{4} << 15},
                      {0, size_t{1} << 20}};
    // A block of normals, copied over and over; anew behind each case whose residuals grow with
    // every launch, or the next ones would read infinities.
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<uint16_t> values(size_t{16} << 20);
    for (uint16_t& v : values) {
      v = float_to_bf16(normal(random));
      if ((v & 0x7F) == 0x7F) v ^= 1;  // no NaN as e4m3 either
    }
    const size_t block = values.size() * 2;
    const cuda::Buffer normals(0, block);
    cuda::copy(normals.get(), values.data(), block, device.stream().cuda);
    const auto fill = [&] {
      for (size_t at = 0; at < kSrc; at += block) {
        cuda::copy(bench.pool.src.data() + at, normals.get(), block, device.stream().cuda);
      }
    };
    fill();
    const std::vector<float> ones(size_t{1} << 15, 1.0f);
    cuda::copy(bench.floats.get(), ones.data(), ones.size() * 4, device.stream().cuda);
    device.synchronize();

    nlohmann::ordered_json rows = nlohmann::ordered_json::array();
    double log_sum = 0, worst = 0;
    int count = 0;
    const auto fused = [&](int64_t m, int64_t k, QuantizeInput input, bool residual) {
      QuantizeDesc desc = plain(m, k);
      desc.input = input;
      desc.has_residual = residual;
      rows.push_back(bench.run(desc, quick));
      if (residual) fill();
    };
    for (const int m : norm_rows) {
      for (const bool residual : {false, true}) {
        for (const int64_t k : kHiddenSizes) fused(m, k, QuantizeInput::kRmsNorm, residual);
        fused(m, kCols, QuantizeInput::kRmsNorm, residual);
      }
    }
    if (!norm_rows.empty()) {
      write(out, rows);
      return 0;
    }
    const std::vector<int64_t> ks = {512, 1024, 2048, 4096, 6144, 8192, 12288, 16384, 32768};
    for (int64_t m = 128; m <= 131072; m *= 2) {
      for (const int64_t k : ks) {
        if (quick && (k & (k - 1)) != 0) continue;
        rows.push_back(bench.run(plain(m, k), quick));
        const double ratio = rows.back()["ratio"];
        log_sum += std::log(ratio);
        worst = std::max(worst, ratio);
        ++count;
      }
    }
    for (const int64_t m : {1024, 8192, 65536}) {
      for (const QuantizeDesc& desc : variants(m, kCols)) rows.push_back(bench.run(desc, quick));
    }
    // What models have besides: of Llama, Qwen and DeepSeek.
    for (const int64_t k : {9728, 14336}) fused(65536, k, QuantizeInput::kSiluMul, false);
    for (const int64_t k : kHiddenSizes) fused(65536, k, QuantizeInput::kRmsNorm, false);
    for (const int64_t m : {1024, 8192, 65536}) fused(m, kCols, QuantizeInput::kRmsNorm, true);
    for (const int64_t k : kHiddenSizes) fused(65536, k, QuantizeInput::kRmsNorm, true);
    const double mean = std::exp(log_sum / count);
    fmt::print("{} sizes: geometric mean {:.4f}, worst {:.3f}\n", count, mean, worst);
    int driver = 0, runtime = 0;
    NIBBLE_CUDA_CHECK(cudaDriverGetVersion(&driver));
    NIBBLE_CUDA_CHECK(cudaRuntimeGetVersion(&runtime));
    nlohmann::ordered_json json = {{"device", device.info().name},
                                   {"cpu", cpu_name()},
                                   {"driver", fmt::format("CUDA {}", driver)},
                                   {"cuda_runtime", runtime},
                                   {"commit", commit},
                                   {"date", date},
                                   {"command", command},
                                   {"sizes", count},
                                   {"ratio_geometric_mean", mean},
                                   {"ratio_worst", worst}};
    const auto short_rows = bench::quantize_summary(rows, static_cast<size_t>(count), kCols);
    json["rows"] = rows;
    write(out, json);
    json["rows"] = short_rows;
    write(summary_out, json);
    return 0;
  } catch (const Error& e) {
    std::fprintf(stderr, "bench_cuda_quantize: %s: %s\n", to_string(e.code()), e.what());
  } catch (const std::exception& e) {  // of an argument that is no number
    std::fprintf(stderr, "bench_cuda_quantize: %s\n", e.what());
  }
  return 1;
}
