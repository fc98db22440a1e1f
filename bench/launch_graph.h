// Times of kernels on a CUDA device: graphs of many launches, replayed.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "base/cuda_check.h"

namespace nibble::bench {

inline constexpr int kRepeats = 7;
inline constexpr std::chrono::milliseconds kRest{5};
inline constexpr std::chrono::milliseconds kAtWork{250};

// `launches` calls of launch(0), launch(1), ..., as a graph.
class LaunchGraph {
 public:
  LaunchGraph(cudaStream_t stream, int launches, const std::function<void(int)>& launch)
      : stream_(stream), launches_(launches) {
    cudaGraph_t graph;
    NIBBLE_CUDA_CHECK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < launches; ++i) launch(i);
    NIBBLE_CUDA_CHECK(cudaStreamEndCapture(stream_, &graph));
    NIBBLE_CUDA_CHECK(cudaGraphInstantiate(&exec_, graph, 0));
    NIBBLE_CUDA_CHECK(cudaGraphDestroy(graph));
    NIBBLE_CUDA_CHECK(cudaEventCreate(&begin_));
    NIBBLE_CUDA_CHECK(cudaEventCreate(&end_));
  }
  ~LaunchGraph() {
    cudaGraphExecDestroy(exec_);
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  LaunchGraph(const LaunchGraph&) = delete;

  // Microseconds of a launch, this time.
  double replay_us() const {
    NIBBLE_CUDA_CHECK(cudaEventRecord(begin_, stream_));
    NIBBLE_CUDA_CHECK(cudaGraphLaunch(exec_, stream_));
    NIBBLE_CUDA_CHECK(cudaEventRecord(end_, stream_));
    NIBBLE_CUDA_CHECK(cudaEventSynchronize(end_));
    float ms;
    NIBBLE_CUDA_CHECK(cudaEventElapsedTime(&ms, begin_, end_));
    return ms * 1e3 / launches_;
  }

 private:
  cudaStream_t stream_;
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
inline std::vector<double> medians_us(cudaStream_t stream, int launches,
                                      std::span<const std::function<void(int)>> contenders) {
  std::vector<std::unique_ptr<LaunchGraph>> graphs;
  for (const auto& launch : contenders) {
    graphs.push_back(std::make_unique<LaunchGraph>(stream, launches, launch));
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

// The median of one that the card has been at for a while: large products take it to its power
// limit.
inline double sustained_median_us(cudaStream_t stream, int launches,
                                  const std::function<void(int)>& launch) {
  const LaunchGraph graph(stream, launches, launch);
  const auto begin = std::chrono::steady_clock::now();
  while (std::chrono::steady_clock::now() - begin < kAtWork) graph.replay_us();
  std::vector<double> times;
  for (int r = 0; r < kRepeats; ++r) times.push_back(graph.replay_us());
  return median(times);
}

}  // namespace nibble::bench
