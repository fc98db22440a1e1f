// How the benchmarks of the sm_90 GEMMs run: arguments, the device, times, the JSON file.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/cuda.h"
#include "bench/arguments.h"
#include "nibble/device.h"

namespace nibble::bench {

#define CUDA_OK(call)                                                                   \
  do {                                                                                  \
    if (const auto e = (call); static_cast<int>(e) != 0) {                              \
      std::fprintf(stderr, "%s:%d: %s: error %d\n", __FILE__, __LINE__, #call, int(e)); \
      std::exit(1);                                                                     \
    }                                                                                   \
  } while (false)

inline constexpr int kLaunches = 48;
inline constexpr int kRepeats = 7;
inline constexpr std::chrono::milliseconds kRest{5};
inline constexpr std::chrono::milliseconds kAtWork{250};

using Shape = std::pair<int, int>;  // n, k
inline const std::vector<Shape> kLayers = {{7168, 2048},  {4096, 7168},  {8192, 8192},
                                           {28672, 4096}, {18432, 7168}, {7168, 18432}};

// "8192x8192,7168x2048"
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

}  // namespace nibble::bench
