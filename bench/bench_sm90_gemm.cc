// The sm_90 decode GEMM against a streaming read of the same bytes and cuBLAS bf16, on one card:
//   bench_sm90_gemm [--json FILE] [--m 1,16] [--shape 8192x8192,...] [--sweep] [--check] [--note
//   TEXT]
// CUDA graphs of 48 launches, weights rotated past L2, medians of 9. Each configuration's output
// is compared with an fp64 sum over every token and a sample of rows before it is timed.
#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/cuda.h"
#include "bench/sm90_gemm_kernels.h"
#include "formats/float16.h"
#include "kernels/sm90/gemm.h"
#include "kernels/sm90/layout.h"

using namespace nibble;
using namespace nibble::bench;
using namespace nibble::sm90;

namespace {

#define CUDA_OK(call)                                                                   \
  do {                                                                                  \
    if (const auto e = (call); static_cast<int>(e) != 0) {                              \
      std::fprintf(stderr, "%s:%d: %s: error %d\n", __FILE__, __LINE__, #call, int(e)); \
      std::exit(1);                                                                     \
    }                                                                                   \
  } while (false)

constexpr int kLaunches = 48;
constexpr int kRepeats = 9;
constexpr size_t kRotateBytes = size_t{300} << 20;  // five times L2
constexpr int kSampleRows = 192;

template <class T>
struct Device {
  T* p = nullptr;
  explicit Device(size_t count) { CUDA_OK(cudaMalloc(&p, std::max<size_t>(count, 1) * sizeof(T))); }
  ~Device() { cudaFree(p); }
  Device(const Device&) = delete;
};

cudaStream_t stream() {
  static cudaStream_t s = [] {
    cudaStream_t made;
    CUDA_OK(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking));
    return made;
  }();
  return s;
}

nibble::Stream nibble_stream(bool pdl) {
  return {.kind = DeviceKind::kCuda, .cuda = stream(), .pdl = pdl};
}

// Microseconds of one of `launch(i)`'s launches.
template <class Launch>
double time_us(int launches, const Launch& launch) {
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  cudaEvent_t begin, end;
  CUDA_OK(cudaEventCreate(&begin));
  CUDA_OK(cudaEventCreate(&end));
  CUDA_OK(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < launches; ++i) launch(i);
  CUDA_OK(cudaStreamEndCapture(stream(), &graph));
  CUDA_OK(cudaGraphInstantiate(&exec, graph, 0));
  std::vector<float> times;
  for (int r = 0; r < kRepeats + 2; ++r) {
    CUDA_OK(cudaEventRecord(begin, stream()));
    CUDA_OK(cudaGraphLaunch(exec, stream()));
    CUDA_OK(cudaEventRecord(end, stream()));
    CUDA_OK(cudaEventSynchronize(end));
    float ms;
    CUDA_OK(cudaEventElapsedTime(&ms, begin, end));
    if (r >= 2) times.push_back(ms * 1e3f / static_cast<float>(launches));
  }
  std::sort(times.begin(), times.end());
  CUDA_OK(cudaGraphExecDestroy(exec));
  CUDA_OK(cudaGraphDestroy(graph));
  CUDA_OK(cudaEventDestroy(begin));
  CUDA_OK(cudaEventDestroy(end));
  return times[times.size() / 2];
}

void in_threads(int64_t count, const std::function<void(int64_t)>& work) {
  std::vector<std::thread> threads;
  const int n = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  for (int t = 0; t < n; ++t) {
    threads.emplace_back([&, t] {
      for (int64_t i = t; i < count; i += n) work(i);
    });
  }
  for (std::thread& t : threads) t.join();
}

// A layer of random weights, canonical and packed, on the device.
struct Layer {
  int n, k;
  size_t bytes;
  int copies;
  std::vector<float> alpha;
  Device<uint8_t> codes, scales, packed;
  Device<float> row_alpha;

  Layer(int rows, int cols, bool rotate)
      : n(rows),
        k(cols),
        bytes(static_cast<size_t>(packed_bytes(rows, cols))),
        copies(rotate ? static_cast<int>(kRotateBytes / bytes) + 2 : 1),
        codes(size_t(n) * k / 2),
        scales(size_t(n) * k / 16),
        packed(bytes * copies),
        row_alpha(row_blocks(n) * kBlockRows) {
    std::vector<uint8_t> c(size_t(n) * k / 2), s(size_t(n) * k / 16), out(bytes);
    alpha.resize(row_blocks(n) * kBlockRows);
    WeightTensor t;
    t.format = WeightFormat::kNvfp4;
    t.n = n;
    t.k = k;
    t.codes = c.data();
    t.scales = s.data();
    t.segments = {{0, 0.0137f}, {n / 3, 0.021f}, {n / 2, 0.007f}};
    in_threads(row_blocks(n), [&](int64_t rb) {
      std::mt19937 rng(static_cast<uint32_t>(rb * 31 + n));
      for (int64_t i = rb * 16; i < std::min<int64_t>(n, rb * 16 + 16); ++i) {
        for (int j = 0; j < k / 2; ++j) c[i * (k / 2) + j] = static_cast<uint8_t>(rng());
        for (int j = 0; j < k / 16; ++j) {
          // Mostly around 1, some subnormal, zero, negative or the largest.
          const uint32_t r = rng();
          uint8_t scale = static_cast<uint8_t>(0x18 + r % 0x38);
          if (r >> 8 & 1 && r >> 9 % 50 == 0) scale = static_cast<uint8_t>(r >> 16 & 0x87);
          if ((r >> 20) % 977 == 1) scale = 0x7E;
          s[i * (k / 16) + j] = scale;
        }
      }
      pack_rows(t, rb, out.data(), alpha.data());
    });
    CUDA_OK(cudaMemcpy(codes.p, c.data(), c.size(), cudaMemcpyHostToDevice));
    CUDA_OK(cudaMemcpy(scales.p, s.data(), s.size(), cudaMemcpyHostToDevice));
    CUDA_OK(cudaMemcpy(row_alpha.p, alpha.data(), alpha.size() * 4, cudaMemcpyHostToDevice));
    for (int i = 0; i < copies; ++i) {
      CUDA_OK(cudaMemcpy(packed.p + i * bytes, out.data(), bytes, cudaMemcpyHostToDevice));
    }
  }
  const uint8_t* copy(int i) const { return packed.p + size_t(i % copies) * bytes; }
};

// bf16 activations, the output and the sampled rows' sums for one m.
struct Problem {
  const Layer& layer;
  int m;
  Device<uint16_t> a, d;
  std::vector<int> rows;
  std::vector<double> want;

  Problem(const Layer& l, int tokens)
      : layer(l), m(tokens), a(size_t(m) * l.k), d(size_t(m) * l.n + 64) {
    std::mt19937 rng(static_cast<uint32_t>(m + l.n));
    std::vector<uint16_t> host(size_t(m) * l.k);
    for (auto& x : host) {
      x = float_to_bf16(static_cast<float>(rng() & 0xFFFF) / 32768.0f - 1.0f);
    }
    CUDA_OK(cudaMemcpy(a.p, host.data(), host.size() * 2, cudaMemcpyHostToDevice));
    const int count = std::min(l.n, kSampleRows);
    for (int i = 0; i < count; ++i) {
      rows.push_back(l.n <= kSampleRows ? i : static_cast<int>(int64_t{l.n - 1} * i / (count - 1)));
    }
    Device<int> device_rows(rows.size());
    Device<double> out(size_t(m) * count);
    CUDA_OK(cudaMemcpy(device_rows.p, rows.data(), rows.size() * 4, cudaMemcpyHostToDevice));
    launch_reference(l.codes.p, l.scales.p, l.row_alpha.p, a.p, device_rows.p, count, l.k, m,
                     out.p);
    CUDA_OK(cudaDeviceSynchronize());
    want.resize(size_t(m) * count);
    CUDA_OK(cudaMemcpy(want.data(), out.p, want.size() * 8, cudaMemcpyDeviceToHost));
  }

  std::vector<uint16_t> output() const {
    std::vector<uint16_t> host(size_t(m) * layer.n + 64);
    CUDA_OK(cudaMemcpy(host.data(), d.p, host.size() * 2, cudaMemcpyDeviceToHost));
    return host;
  }
  // ||d - want|| / ||want||; NaN where the guard behind d was written.
  double error(const std::vector<uint16_t>& got) const {
    double wrong = 0.0, all = 0.0;
    for (size_t i = 0; i < want.size(); ++i) {
      const double x =
          bf16_to_float(got[i / rows.size() * layer.n + rows[i % rows.size()]]) - want[i];
      wrong += x * x;
      all += want[i] * want[i];
    }
    for (size_t i = size_t(m) * layer.n; i < got.size(); ++i) {
      uint16_t bits;
      std::memcpy(&bits, &got[i], 2);
      if (bits != 0xFFFF) return NAN;
    }
    return std::sqrt(wrong / all);
  }
  template <class Launch>
  double check(const Launch& launch) const {
    const size_t bytes = (size_t(m) * layer.n + 64) * 2;
    std::vector<uint16_t> first;
    for (int run = 0; run < 2; ++run) {
      CUDA_OK(cudaMemset(d.p, 0xFF, bytes));
      CUDA_OK(cudaDeviceSynchronize());
      launch(run);
      const cudaError_t e = cudaStreamSynchronize(stream());
      if (e != cudaSuccess) {
        std::printf("FAULT n=%d k=%d m=%d %s\n", layer.n, layer.k, m, cudaGetErrorString(e));
        std::exit(1);
      }
      if (run == 0) first = output();
    }
    const auto second = output();
    if (std::memcmp(first.data(), second.data(), bytes) != 0) return NAN;
    return error(first);
  }
};

struct Options {
  std::vector<int> m = {1, 4, 8, 16, 32, 64};
  std::vector<std::pair<int, int>> shapes = {{7168, 2048},  {4096, 7168},  {8192, 8192},
                                             {28672, 4096}, {18432, 7168}, {7168, 18432}};
  std::string json, note;
  bool check = false, sweep = false;
};

DeviceInfo device_info() {
  const cuda::Properties found = cuda::properties(0);
  DeviceInfo info;
  info.kind = DeviceKind::kCuda;
  info.name = found.name;
  info.sm = found.sm;
  info.num_sms = found.num_sms;
  info.bandwidth_gbps = found.bandwidth_gbps;
  return info;
}

// One call of the table's entry.
struct Call {
  PreparedWeight weight;
  GemmArgs args;

  Call(const Problem& p, const uint8_t* packed) {
    weight.format = WeightFormat::kNvfp4;
    weight.n = p.layer.n;
    weight.k = p.layer.k;
    weight.layout = WeightLayout::kSm90;
    weight.codes = packed;
    weight.row_alpha = p.layer.row_alpha.p;
    args.desc = {.m = p.m,
                 .n = p.layer.n,
                 .k = p.layer.k,
                 .weight = WeightFormat::kNvfp4,
                 .layout = WeightLayout::kSm90,
                 .activation = ActivationMode::k16Bit,
                 .a_type = DType::kBF16,
                 .d_type = DType::kBF16};
    args.a = {p.a.p, DType::kBF16, p.m, p.layer.k, p.layer.k};
    args.d = {p.d.p, DType::kBF16, p.m, p.layer.n, p.layer.n};
  }
};
void run_once(const Problem& p, const uint8_t* packed, const KernelConfig& config, bool pdl) {
  Call call(p, packed);
  call.args.b = &call.weight;
  kDecodeGemm.launch(call.args, config, nibble_stream(pdl));
}

constexpr double kMaxError = 3e-3;  // bf16 output rounds at 1.7e-3

int check_all(const std::vector<int>& tokens, const DeviceInfo& info) {
  int failures = 0, count = 0;
  double worst = 0.0;
  const std::pair<int, int> shapes[] = {{16, 16},   {128, 256}, {37, 208}, {200, 1040},
                                        {576, 640}, {1000, 48}, {49, 4112}};
  for (const auto& [n, k] : shapes) {
    const Layer layer(n, k, false);
    for (int m : tokens) {
      const Problem p(layer, m);
      for (const KernelConfig& c : kDecodeGemm.candidates(Call(p, nullptr).args.desc, info)) {
        for (bool pdl : {false, true}) {
          const double e = p.check([&](int) { run_once(p, layer.packed.p, c, pdl); });
          ++count;
          worst = std::max(worst, e);
          if (e < kMaxError) continue;
          if (++failures < 30) {
            std::printf("BAD n=%d k=%d m=%d %s pdl=%d: %g\n", n, k, m, to_string(c).c_str(), pdl,
                        e);
          }
        }
      }
    }
  }
  std::printf("check: %d launches, %d wrong, worst error %.2e\n", count, failures, worst);
  return failures != 0;
}

void run(const Options& options, const DeviceInfo& info) {
  FILE* json = options.json.empty() ? nullptr : std::fopen(options.json.c_str(), "w");
  cublasHandle_t cublas;
  CUDA_OK(cublasCreate(&cublas));
  CUDA_OK(cublasSetStream(cublas, stream()));
  Device<uint8_t> workspace(size_t{64} << 20);
  CUDA_OK(cublasSetWorkspace(cublas, workspace.p, size_t{64} << 20));
  const double null_us = time_us(kLaunches, [&](int) { launch_nothing(stream()); });
  std::printf("%s, null kernel %.2f us\n", info.name.c_str(), null_us);
  if (json) {
    int driver = 0;
    CUDA_OK(cudaDriverGetVersion(&driver));
    std::fprintf(json,
                 "{\"device\": \"%s\", \"cuda_driver\": %d, \"note\": \"%s\", \"null_us\": "
                 "%.3f,\n\"cells\": [",
                 info.name.c_str(), driver, options.note.c_str(), null_us);
  }
  const char* separator = "\n";
  std::vector<double> ratios(options.m.size(), 0.0), best_ratios(options.m.size(), 0.0);
  for (const auto& [n, k] : options.shapes) {
    const Layer layer(n, k, true);
    const size_t wide = size_t(n) * k;
    const int wide_copies = static_cast<int>(kRotateBytes / (wide * 2)) + 2;
    Device<uint16_t> widened(wide * wide_copies);
    for (int i = 0; i < wide_copies; ++i) {
      launch_widen(layer.codes.p, layer.scales.p, widened.p + i * wide, wide);
    }
    Device<uint8_t> sink(16);
    CUDA_OK(cudaDeviceSynchronize());
    double floor = 1e9;
    for (int grid : {528, 1056}) {
      floor = std::min(floor, time_us(kLaunches, [&](int i) {
                         launch_stream_read(layer.copy(i), layer.bytes - kTailBytes, sink.p, grid,
                                            stream());
                       }));
    }
    std::printf("== %dx%d floor %.2f us\n", n, k, floor);
    for (size_t mi = 0; mi < options.m.size(); ++mi) {
      const int m = options.m[mi];
      const Problem p(layer, m);
      const float one = 1.0f, zero = 0.0f;
      const double cublas_us = time_us(kLaunches, [&](int i) {
        CUDA_OK(cublasGemmEx(cublas, CUBLAS_OP_T, CUBLAS_OP_N, n, m, k, &one,
                             widened.p + size_t(i % wide_copies) * wide, CUDA_R_16BF, k, p.a.p,
                             CUDA_R_16BF, k, &zero, p.d.p, CUDA_R_16BF, n, CUBLAS_COMPUTE_32F,
                             CUBLAS_GEMM_DEFAULT));
      });
      const GemmDesc desc = Call(p, nullptr).args.desc;
      const auto time = [&](const KernelConfig& c, bool pdl) {
        return time_us(kLaunches, [&](int i) { run_once(p, layer.copy(i), c, pdl); });
      };
      std::vector<std::pair<double, KernelConfig>> estimates;
      for (const KernelConfig& c : kDecodeGemm.candidates(desc, info)) {
        estimates.emplace_back(kDecodeGemm.estimate_us(desc, c, info), c);
      }
      std::sort(estimates.begin(), estimates.end(),
                [](const auto& a, const auto& b) { return a.first < b.first; });
      const KernelConfig chosen = estimates[0].second;
      const double error = p.check([&](int i) { run_once(p, layer.copy(i), chosen, false); });
      const double us = time(chosen, false), pdl_us = time(chosen, true);
      double best = us;
      KernelConfig best_config = chosen;
      if (options.sweep) {
        for (const auto& [estimate, c] : estimates) {
          if (estimate > 2.0 * estimates[0].first) break;
          const double t = time(c, false);
          if (t < best) {
            best = t;
            best_config = c;
          }
        }
      }
      ratios[mi] += std::log(us / floor) / static_cast<double>(options.shapes.size());
      best_ratios[mi] += std::log(best / floor) / static_cast<double>(options.shapes.size());
      std::printf(
          "m=%-3d cublas %.2f | %.2f (%.2f of floor), pdl %.2f, estimate %.2f [%s] error %.1e | "
          "best of %zu %.2f [%s]\n",
          m, cublas_us, us, us / floor, pdl_us, estimates[0].first, to_string(chosen).c_str(),
          error, estimates.size(), best, to_string(best_config).c_str());
      std::fflush(stdout);
      if (json) {
        std::fprintf(
            json,
            "%s{\"n\": %d, \"k\": %d, \"m\": %d, \"floor_us\": %.3f, \"cublas_bf16_us\": %.3f, "
            "\"us\": %.3f, \"pdl_us\": %.3f, \"estimate_us\": %.3f, \"error\": %.2e, \"config\": "
            "\"%s\", "
            "\"best_us\": %.3f, \"best_config\": \"%s\"}",
            separator, n, k, m, floor, cublas_us, us, pdl_us, estimates[0].first, error,
            to_string(chosen).c_str(), best, to_string(best_config).c_str());
        separator = ",\n";
      }
    }
  }
  for (size_t mi = 0; mi < options.m.size(); ++mi) {
    std::printf("m=%d: geometric mean of time / floor %.3f (best candidates %.3f)\n", options.m[mi],
                std::exp(ratios[mi]), std::exp(best_ratios[mi]));
  }
  if (json) {
    std::fprintf(json, "\n]}\n");
    std::fclose(json);
  }
}

std::vector<std::string> split(const char* list) {
  std::vector<std::string> parts;
  for (std::string_view rest = list; !rest.empty();) {
    const size_t comma = std::min(rest.find(','), rest.size());
    parts.emplace_back(rest.substr(0, comma));
    rest.remove_prefix(std::min(comma + 1, rest.size()));
  }
  return parts;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--check") {
      options.check = true;
    } else if (arg == "--sweep") {
      options.sweep = true;
    } else if (arg == "--note" && i + 1 < argc) {
      options.note = argv[++i];
    } else if (arg == "--json" && i + 1 < argc) {
      options.json = argv[++i];
    } else if (arg == "--m" && i + 1 < argc) {
      options.m.clear();
      for (const std::string& m : split(argv[++i])) options.m.push_back(std::stoi(m));
    } else if (arg == "--shape" && i + 1 < argc) {
      options.shapes.clear();
      for (const std::string& s : split(argv[++i])) {
        options.shapes.emplace_back(std::stoi(s), std::stoi(s.substr(s.find('x') + 1)));
      }
    } else {
      std::fprintf(stderr, "unknown argument %s\n", argv[i]);
      return 2;
    }
  }
  const DeviceInfo info = device_info();
  if (options.check) return check_all(options.m, info);
  run(options, info);
  return 0;
}
