// Layers, problems and times of bench_sm90_gemm and bench_sm90_kinds.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/cuda.h"
#include "bench/sm90_gemm_kernels.h"
#include "formats/float16.h"
#include "kernels/sm90/layout.h"

namespace nibble::bench {

using namespace nibble::sm90;

#define CUDA_OK(call)                                                                   \
  do {                                                                                  \
    if (const auto e = (call); static_cast<int>(e) != 0) {                              \
      std::fprintf(stderr, "%s:%d: %s: error %d\n", __FILE__, __LINE__, #call, int(e)); \
      std::exit(1);                                                                     \
    }                                                                                   \
  } while (false)

inline constexpr int kLaunches = 48;
inline constexpr int kRepeats = 7;
inline constexpr size_t kRotateBytes = size_t{300} << 20;  // five times L2
inline constexpr int kSampleRows = 192;
inline constexpr std::chrono::milliseconds kRest{5};
inline constexpr std::chrono::milliseconds kAtWork{250};

using Shape = std::pair<int, int>;  // n, k
inline const std::vector<Shape> kLayers = {{7168, 2048},  {4096, 7168},  {8192, 8192},
                                           {28672, 4096}, {18432, 7168}, {7168, 18432}};

// Of arguments: "1,16", "8192x8192,7168x2048".
inline std::vector<std::string> split(const char* list) {
  std::vector<std::string> parts;
  for (std::string_view rest = list; !rest.empty();) {
    const size_t comma = std::min(rest.find(','), rest.size());
    parts.emplace_back(rest.substr(0, comma));
    rest.remove_prefix(std::min(comma + 1, rest.size()));
  }
  return parts;
}
inline std::vector<int> tokens_of(const char* list) {
  std::vector<int> all;
  for (const std::string& m : split(list)) all.push_back(std::stoi(m));
  return all;
}
inline std::vector<Shape> shapes_of(const char* list) {
  std::vector<Shape> all;
  for (const std::string& s : split(list)) {
    all.emplace_back(std::stoi(s), std::stoi(s.substr(s.find('x') + 1)));
  }
  return all;
}

inline DeviceInfo device_info() {
  const cuda::Properties found = cuda::properties(0);
  DeviceInfo info;
  info.kind = DeviceKind::kCuda;
  info.name = found.name;
  info.sm = found.sm;
  info.num_sms = found.num_sms;
  info.bandwidth_gbps = found.bandwidth_gbps;
  return info;
}

// As many as take a few milliseconds.
inline int launches_of(int m, int n, int k) {
  constexpr double kFlopsPerUs = 700e6, kGraphUs = 4000.0;
  const double us = 2.0 * m * n * k / kFlopsPerUs;
  return std::clamp(static_cast<int>(kGraphUs / std::max(us, 1.0)), 4, kLaunches);
}

// Where --json writes, "{" and what every run says; null without it.
inline FILE* open_json(const std::string& path, const std::string& device,
                       const std::string& note) {
  if (path.empty()) return nullptr;
  FILE* const file = std::fopen(path.c_str(), "w");
  if (file == nullptr) {
    std::fprintf(stderr, "%s: cannot be written\n", path.c_str());
    std::exit(1);
  }
  int driver = 0;
  CUDA_OK(cudaDriverGetVersion(&driver));
  std::fprintf(file, "{\"device\": \"%s\", \"cuda_driver\": %d, \"note\": \"%s\"", device.c_str(),
               driver, note.c_str());
  return file;
}
// Behind the last cell.
inline void close_json(FILE* file) {
  if (file == nullptr) return;
  std::fprintf(file, "\n]}\n");
  std::fclose(file);
}

template <class T>
struct Memory {
  T* p = nullptr;
  explicit Memory(size_t count) { CUDA_OK(cudaMalloc(&p, std::max<size_t>(count, 1) * sizeof(T))); }
  ~Memory() { cudaFree(p); }
  Memory(const Memory&) = delete;
};

inline cudaStream_t stream() {
  static cudaStream_t s = [] {
    cudaStream_t made;
    CUDA_OK(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking));
    return made;
  }();
  return s;
}

inline nibble::Stream nibble_stream(bool pdl) {
  return {.kind = DeviceKind::kCuda, .cuda = stream(), .pdl = pdl};
}

// `launches` calls of launch(0), launch(1), ..., as a graph.
class LaunchGraph {
 public:
  LaunchGraph(int launches, const std::function<void(int)>& launch) : launches_(launches) {
    cudaGraph_t graph;
    CUDA_OK(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < launches; ++i) launch(i);
    CUDA_OK(cudaStreamEndCapture(stream(), &graph));
    CUDA_OK(cudaGraphInstantiate(&exec_, graph, 0));
    CUDA_OK(cudaGraphDestroy(graph));
    CUDA_OK(cudaEventCreate(&begin_));
    CUDA_OK(cudaEventCreate(&end_));
  }
  ~LaunchGraph() {
    cudaGraphExecDestroy(exec_);
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  LaunchGraph(const LaunchGraph&) = delete;

  // Microseconds of a launch, this time.
  double replay_us() const {
    CUDA_OK(cudaEventRecord(begin_, stream()));
    CUDA_OK(cudaGraphLaunch(exec_, stream()));
    CUDA_OK(cudaEventRecord(end_, stream()));
    CUDA_OK(cudaEventSynchronize(end_));
    float ms;
    CUDA_OK(cudaEventElapsedTime(&ms, begin_, end_));
    return ms * 1e3 / launches_;
  }

 private:
  int launches_;
  cudaGraphExec_t exec_;
  cudaEvent_t begin_, end_;
};

inline double median(std::vector<double> times) {
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

// The median of each contender, in turns forwards and backwards. The card rests before each turn:
// one at its power limit gives all that take turns the clock that their mean power allows, and so
// says which of them takes fewest clocks, not which takes least time (7168 x 18432 at m = 512, 128
// x 128 cut and 128 x 256 whole: 210 and 236 us in turns without rests; with them 190 and 177; each
// alone for long 211 and 197).
inline std::vector<double> medians_us(int launches,
                                      std::span<const std::function<void(int)>> contenders) {
  std::vector<std::unique_ptr<LaunchGraph>> graphs;
  for (const auto& launch : contenders) {
    graphs.push_back(std::make_unique<LaunchGraph>(launches, launch));
  }
  const int count = static_cast<int>(graphs.size());
  std::vector<std::vector<double>> times(graphs.size());
  for (int r = -1; r < kRepeats; ++r) {
    for (int j = 0; j < count; ++j) {
      const int i = r % 2 == 0 ? j : count - 1 - j;
      std::this_thread::sleep_for(kRest);
      graphs[i]->replay_us();  // wakes it up
      const double us = graphs[i]->replay_us();
      if (r >= 0) times[i].push_back(us);
    }
  }
  std::vector<double> medians;
  for (const auto& t : times) medians.push_back(median(t));
  return medians;
}
inline double median_us(int launches, const std::function<void(int)>& launch) {
  return medians_us(launches, {&launch, 1})[0];
}

// The median of one that the card has been at for a while: large products take it to its power
// limit.
inline double sustained_median_us(int launches, const std::function<void(int)>& launch) {
  const LaunchGraph graph(launches, launch);
  const auto begin = std::chrono::steady_clock::now();
  while (std::chrono::steady_clock::now() - begin < kAtWork) graph.replay_us();
  std::vector<double> times;
  for (int r = 0; r < kRepeats; ++r) times.push_back(graph.replay_us());
  return median(times);
}

inline void in_threads(int64_t count, const std::function<void(int64_t)>& work) {
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
  Memory<uint8_t> codes, scales, packed;
  Memory<float> row_alpha;

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
    CUDA_OK(cudaMemcpy(packed.p, out.data(), bytes, cudaMemcpyHostToDevice));
    for (int i = 1; i < copies; ++i) {
      CUDA_OK(cudaMemcpy(packed.p + i * bytes, packed.p, bytes, cudaMemcpyDeviceToDevice));
    }
  }
  const uint8_t* copy(int i) const { return packed.p + size_t(i % copies) * bytes; }
};

// A layer by cuBLAS: its weights without alpha in bf16 or fp16, as many copies as rotate.
class CublasLayer {
 public:
  CublasLayer(const Layer& layer, bool fp16)
      : cublas_(handle()),  // here: no memory can be had while a graph is captured
        layer_(layer),
        type_(fp16 ? CUDA_R_16F : CUDA_R_16BF),
        size_(size_t(layer.n) * layer.k),
        copies_(static_cast<int>(kRotateBytes / (size_ * 2)) + 2),
        weights_(size_ * copies_) {
    for (int i = 0; i < copies_; ++i) {
      launch_widen(layer.codes.p, layer.scales.p, weights_.p + i * size_, size_, fp16);
    }
    CUDA_OK(cudaDeviceSynchronize());
  }
  // d[m, n] of a[m, k], both of the layer's type, with copy i.
  void multiply(int i, const uint16_t* a, int m, void* d) const {
    const float one = 1.0f, zero = 0.0f;
    CUDA_OK(cublasGemmEx(cublas_, CUBLAS_OP_T, CUBLAS_OP_N, layer_.n, m, layer_.k, &one,
                         weights_.p + size_t(i % copies_) * size_, type_, layer_.k, a, type_,
                         layer_.k, &zero, d, type_, layer_.n, CUBLAS_COMPUTE_32F,
                         CUBLAS_GEMM_DEFAULT));
  }

 private:
  static cublasHandle_t handle() {
    static const Memory<uint8_t> workspace(size_t{64} << 20);
    static cublasHandle_t made = [] {
      cublasHandle_t cublas;
      CUDA_OK(cublasCreate(&cublas));
      CUDA_OK(cublasSetStream(cublas, stream()));
      CUDA_OK(cublasSetWorkspace(cublas, workspace.p, size_t{64} << 20));
      return cublas;
    }();
    return made;
  }

  cublasHandle_t cublas_;
  const Layer& layer_;
  cudaDataType_t type_;
  size_t size_;
  int copies_;
  Memory<uint16_t> weights_;
};

// bf16 activations, the output, C and the sampled rows' sums for one m.
struct Problem {
  const Layer& layer;
  int m;
  DType type;
  bool has_c;
  int d_stride;
  Memory<uint16_t> a;
  Memory<uint8_t> d, c;
  std::vector<int> rows;
  std::vector<double> want;

  static constexpr int kGuard = 128;  // bytes behind the output

  Problem(const Layer& l, int tokens, DType output = DType::kBF16, bool with_c = false,
          int padding = 0)
      : layer(l),
        m(tokens),
        type(output),
        has_c(with_c),
        d_stride(l.n + padding),
        a(size_t(m) * l.k),
        d(bytes()),
        c(with_c ? bytes() : 0) {
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
    Memory<int> device_rows(rows.size());
    Memory<double> out(size_t(m) * count);
    CUDA_OK(cudaMemcpy(device_rows.p, rows.data(), rows.size() * 4, cudaMemcpyHostToDevice));
    launch_reference(l.codes.p, l.scales.p, l.row_alpha.p, a.p, device_rows.p, count, l.k, m,
                     out.p);
    CUDA_OK(cudaDeviceSynchronize());
    want.resize(size_t(m) * count);
    CUDA_OK(cudaMemcpy(want.data(), out.p, want.size() * 8, cudaMemcpyDeviceToHost));
    if (!has_c) return;
    std::vector<uint8_t> c_host(bytes());
    for (size_t i = 0; i < c_host.size() / size_of(type); ++i) {
      put(c_host.data(), i, static_cast<float>(static_cast<int>(rng() % 17) - 8) / 8.0f);
    }
    CUDA_OK(cudaMemcpy(c.p, c_host.data(), c_host.size(), cudaMemcpyHostToDevice));
    for (size_t i = 0; i < want.size(); ++i) want[i] += get(c_host.data(), place(i));
  }

  size_t bytes() const { return size_t(m) * d_stride * size_of(type) + kGuard; }
  // Where the i-th of `want` is in the output.
  size_t place(size_t i) const { return i / rows.size() * d_stride + rows[i % rows.size()]; }
  void put(uint8_t* to, size_t i, float value) const {
    const uint16_t half = type == DType::kBF16 ? float_to_bf16(value) : float_to_fp16(value);
    if (type == DType::kF32) {
      std::memcpy(to + 4 * i, &value, 4);
    } else {
      std::memcpy(to + 2 * i, &half, 2);
    }
  }
  float get(const uint8_t* from, size_t i) const {
    if (type == DType::kF32) {
      float value;
      std::memcpy(&value, from + 4 * i, 4);
      return value;
    }
    uint16_t half;
    std::memcpy(&half, from + 2 * i, 2);
    return type == DType::kBF16 ? bf16_to_float(half) : fp16_to_float(half);
  }
  std::vector<uint8_t> output() const {
    std::vector<uint8_t> host(bytes());
    CUDA_OK(cudaMemcpy(host.data(), d.p, host.size(), cudaMemcpyDeviceToHost));
    return host;
  }
  // ||d - want|| / ||want||; NaN where the guards between rows and behind d were written.
  double error(const std::vector<uint8_t>& got) const {
    double wrong = 0.0, all = 0.0;
    for (size_t i = 0; i < want.size(); ++i) {
      const double x = get(got.data(), place(i)) - want[i];
      wrong += x * x;
      all += want[i] * want[i];
    }
    const auto untouched = [&](size_t begin, size_t end) {
      return std::all_of(got.begin() + static_cast<int64_t>(begin),
                         got.begin() + static_cast<int64_t>(end),
                         [](uint8_t byte) { return byte == 0xFF; });
    };
    const size_t element = size_of(type);
    for (int i = 0; i < m; ++i) {
      const size_t row = size_t(i) * d_stride;
      if (!untouched((row + layer.n) * element, (row + d_stride) * element)) return NAN;
    }
    if (!untouched(bytes() - kGuard, bytes())) return NAN;
    return std::sqrt(wrong / all);
  }
  template <class Launch>
  double check(const Launch& launch) const {
    std::vector<uint8_t> first;
    for (int run = 0; run < 2; ++run) {
      CUDA_OK(cudaMemset(d.p, 0xFF, bytes()));
      CUDA_OK(cudaDeviceSynchronize());
      launch(run);
      const cudaError_t e = cudaStreamSynchronize(stream());
      if (e != cudaSuccess) {
        std::printf("FAULT n=%d k=%d m=%d %s\n", layer.n, layer.k, m, cudaGetErrorString(e));
        std::exit(1);
      }
      if (run == 0) first = output();
    }
    return output() == first ? error(first) : NAN;
  }
};

}  // namespace nibble::bench
