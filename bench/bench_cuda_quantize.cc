// Quantizing on a CUDA device against the best plain copy of the same bytes, over 99 sizes:
//   bench_cuda_quantize [--out FILE] [--quick] [--commit HASH]
// One harness for both: CUDA graphs over buffers that rotate through more than L2, the median of
// repeated replays. "null" times the same kernel twice: what differs by less is noise. That the
// quantizer's bytes are right is for `nibble selftest --device cuda` to say.
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/cuda.h"
#include "base/cuda_check.h"
#include "bench/copy.cuh"
#include "dispatch/tables.h"
#include "formats/float16.h"
#include "formats/scale_layout.h"

namespace nibble {
namespace {

constexpr int kRepeats = 7;
constexpr size_t kRotatedBytes = size_t{200} << 20;  // over three times H200's L2
constexpr int kMinLaunches = 20;
constexpr size_t kMaxLaunches = 2000;
constexpr float kDecodeScale = 0.002f;
constexpr size_t kAlignment = 1024;

size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// Memory that every size uses a part of; the sources hold bf16 normals (any bits serve a copy).
struct Pool {
  cuda::Buffer src, out;
  size_t src_bytes, out_bytes;
};

using Launch = std::function<void(const uint8_t* src, uint8_t* codes, uint8_t* scales, Stream)>;

struct Size {
  int64_t m, k;
  size_t src_bytes, codes_bytes, scale_bytes;
  double bytes() const { return static_cast<double>(src_bytes + codes_bytes + scale_bytes); }
};

Size size_of_case(int64_t m, int64_t k, DType type, ScaleLayout layout, WeightFormat format) {
  return {m, k, static_cast<size_t>(m * k) * size_of(type), static_cast<size_t>(m * k / 2),
          static_cast<size_t>(scale_bytes(layout, m, k / block_size(format)))};
}

// Microseconds of one launch, the median of graph replays.
double time_us(const Launch& launch, const Size& size, const Pool& pool, Stream stream) {
  const size_t out = aligned(size.codes_bytes) + aligned(size.scale_bytes);
  const size_t set = aligned(size.src_bytes) + out;
  size_t sets = std::max<size_t>(2, kRotatedBytes / set + 1);
  sets = std::min({sets, pool.src_bytes / aligned(size.src_bytes), pool.out_bytes / out});
  const int launches = std::max(kMinLaunches, static_cast<int>(std::min(sets, kMaxLaunches)));
  auto* cuda_stream = static_cast<cudaStream_t>(stream.cuda);
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  NIBBLE_CUDA_CHECK(cudaStreamBeginCapture(cuda_stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < launches; ++i) {
    const size_t turn = static_cast<size_t>(i) % sets;
    uint8_t* codes = pool.out.data() + turn * out;
    launch(pool.src.data() + turn * aligned(size.src_bytes), codes,
           codes + aligned(size.codes_bytes), stream);
  }
  NIBBLE_CUDA_CHECK(cudaStreamEndCapture(cuda_stream, &graph));
  NIBBLE_CUDA_CHECK(cudaGraphInstantiate(&exec, graph, 0));
  const cuda::OwnedEvent begin(stream.index), end(stream.index);
  std::vector<double> us;
  for (int i = 0; i < kRepeats + 1; ++i) {
    cuda::record(begin.get(), stream.cuda);
    NIBBLE_CUDA_CHECK(cudaGraphLaunch(exec, cuda_stream));
    cuda::record(end.get(), stream.cuda);
    const double ms = cuda::milliseconds(begin.get(), end.get());
    if (i > 0) us.push_back(ms * 1e3 / launches);  // the first warms up
  }
  NIBBLE_CUDA_CHECK(cudaGraphExecDestroy(exec));
  NIBBLE_CUDA_CHECK(cudaGraphDestroy(graph));
  std::ranges::sort(us);
  return us[us.size() / 2];
}

struct Bench {
  Device device;
  Pool pool;
  const QuantizeImpl* impl;

  Launch quantize(const QuantizeDesc& desc, const KernelConfig& config, bool pdl) const {
    return [=, this](const uint8_t* src, uint8_t* codes, uint8_t* scales, Stream stream) {
      QuantizeArgs args;
      args.desc = desc;
      args.src = {const_cast<uint8_t*>(src), desc.src_type, desc.m, desc.k, desc.k};
      args.global_decode_scale = kDecodeScale;
      args.codes = codes;
      args.scales = scales;
      stream.pdl = pdl;
      impl->launch(args, config, stream);
    };
  }

  Launch copy(int kernel, const Size& size, DType type) const {
    const CopyOf of{kernel, static_cast<int>(16 * size_of(type)), size.m * size.k / 16,
                    static_cast<int64_t>(size.scale_bytes)};
    return [of](const uint8_t* src, uint8_t* codes, uint8_t* scales, Stream stream) {
      bench::launch_copy(of.kernel, of.bytes_per_unit,
                         {src, codes, scales, of.units, of.scale_bytes}, stream);
    };
  }

  nlohmann::ordered_json run(int64_t m, int64_t k, DType type, ScaleLayout layout,
                             WeightFormat format, bool all_configs) const {
    const QuantizeDesc desc{.format = format, .src_type = type, .layout = layout, .m = m, .k = k};
    const Size size = size_of_case(m, k, type, layout, format);
    const Stream stream = device.stream();
    nlohmann::ordered_json row = {{"m", m},
                                  {"k", k},
                                  {"src", to_string(type)},
                                  {"format", to_string(format)},
                                  {"layout", to_string(layout)},
                                  {"bytes", size.bytes()}};
    double copy_us = INFINITY;
    for (int kernel = 0; kernel < bench::kCopyKernels; ++kernel) {
      const double us = time_us(copy(kernel, size, type), size, pool, stream);
      row["copies_us"][bench::copy_name(kernel)] = us;
      copy_us = std::min(copy_us, us);
    }
    const auto configs = impl->candidates(desc, device.info());
    const double us = time_us(quantize(desc, configs[0], false), size, pool, stream);
    row["copy_us"] = copy_us;
    row["quantize_us"] = us;
    row["null_us"] = time_us(quantize(desc, configs[0], false), size, pool, stream);
    row["pdl_us"] = time_us(quantize(desc, configs[0], true), size, pool, stream);
    row["config"] = to_string(configs[0]);
    row["ratio"] = us / copy_us;
    row["gbps"] = size.bytes() / us / 1e3;
    if (all_configs) {
      for (const KernelConfig& c : configs) {
        row["configs_us"][to_string(c)] = time_us(quantize(desc, c, false), size, pool, stream);
      }
    }
    fmt::print(
        "{:>7} x {:<6} {:<5} {:<6} {:<7} copy {:>9.2f} us  quantize {:>9.2f} us ({:.3f})  pdl "
        "{:>9.2f}  null {:.3f}",
        m, k, to_string(type), to_string(format), to_string(layout), copy_us, us, us / copy_us,
        row["pdl_us"].get<double>(), row["null_us"].get<double>() / us);
    if (all_configs) {
      for (const auto& [name, value] : row["configs_us"].items()) {
        fmt::print("  [{}] {:.3f}", name, value.get<double>() / copy_us);
      }
    }
    fmt::print("\n");
    std::fflush(stdout);
    return row;
  }

 private:
  struct CopyOf {
    int kernel, bytes_per_unit;
    int64_t units, scale_bytes;
  };
};

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  using namespace nibble;
  std::string out, commit = "unknown", command = argv[0];
  bool quick = false;
  for (int i = 1; i < argc; ++i) {
    command += std::string(" ") + argv[i];
    if (!std::strcmp(argv[i], "--quick")) quick = true;
    if (!std::strcmp(argv[i], "--out") && i + 1 < argc) out = argv[i + 1];
    if (!std::strcmp(argv[i], "--commit") && i + 1 < argc) commit = argv[i + 1];
  }
  try {
    const Device device = Device::cuda();
    const auto all = impls<QuantizeImpl>();
    const auto impl = std::ranges::find(all, "cuda_quantize", &QuantizeImpl::name);
    NIBBLE_CHECK(impl != all.end(), ErrorCode::kUnsupported, "cuda_quantize is not built");
    constexpr size_t kSrc = size_t{9} << 30, kOut = size_t{5} << 30;
    const Bench bench{device, {{0, kSrc}, {0, kOut}, kSrc, kOut}, &*impl};
    // A block of normals, copied over and over.
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<uint16_t> values(size_t{16} << 20);
    for (uint16_t& v : values) v = float_to_bf16(normal(random));
    for (size_t at = 0; at < kSrc; at += values.size() * 2) {
      cuda::copy(bench.pool.src.data() + at, values.data(), values.size() * 2,
                 device.stream().cuda);
    }
    device.synchronize();

    nlohmann::ordered_json rows = nlohmann::ordered_json::array();
    double log_sum = 0, worst = 0;
    int count = 0;
    const std::vector<int64_t> ks = {512, 1024, 2048, 4096, 6144, 8192, 12288, 16384, 32768};
    for (int64_t m = 128; m <= 131072; m *= 2) {
      for (const int64_t k : ks) {
        if (quick && (k & (k - 1)) != 0) continue;
        rows.push_back(bench.run(m, k, DType::kBF16, ScaleLayout::kSwizzled128x4,
                                 WeightFormat::kNvfp4, quick));
        const double ratio = rows.back()["ratio"];
        log_sum += std::log(ratio);
        worst = std::max(worst, ratio);
        ++count;
      }
    }
    for (const int64_t m : {1024, 8192, 65536}) {
      const auto add = [&](DType t, ScaleLayout l, WeightFormat f) {
        rows.push_back(bench.run(m, 8192, t, l, f, quick));
      };
      add(DType::kF16, ScaleLayout::kSwizzled128x4, WeightFormat::kNvfp4);
      add(DType::kF32, ScaleLayout::kSwizzled128x4, WeightFormat::kNvfp4);
      add(DType::kBF16, ScaleLayout::kLinear, WeightFormat::kNvfp4);
      add(DType::kBF16, ScaleLayout::kSwizzled8x4, WeightFormat::kNvfp4);
      add(DType::kBF16, ScaleLayout::kSwizzled128x4, WeightFormat::kMxfp4);
      add(DType::kBF16, ScaleLayout::kLinear, WeightFormat::kMxfp4);
    }
    const double mean = std::exp(log_sum / count);
    fmt::print("{} sizes: geometric mean {:.4f}, worst {:.3f}\n", count, mean, worst);
    if (!out.empty()) {
      int driver = 0, runtime = 0;
      NIBBLE_CUDA_CHECK(cudaDriverGetVersion(&driver));
      NIBBLE_CUDA_CHECK(cudaRuntimeGetVersion(&runtime));
      const nlohmann::ordered_json json = {{"device", device.info().name},
                                           {"cuda_driver", driver},
                                           {"cuda_runtime", runtime},
                                           {"commit", commit},
                                           {"command", command},
                                           {"sizes", count},
                                           {"ratio_geometric_mean", mean},
                                           {"ratio_worst", worst},
                                           {"rows", rows}};
      std::ofstream(out) << json.dump(1) << "\n";
    }
    return 0;
  } catch (const Error& e) {
    std::fprintf(stderr, "bench_cuda_quantize: %s: %s\n", to_string(e.code()), e.what());
    return 1;
  }
}
