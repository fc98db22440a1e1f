#include "cases/timer.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <numeric>
#include <thread>

#include "base/cuda.h"
#include "base/thread_pool.h"

namespace nibble::cases {
namespace {

constexpr int kRepeats = 9;
// Long enough that the clock's and the events' resolution does not show.
constexpr double kCpuSeconds = 0.02;
constexpr double kCudaSeconds = 0.002;
// Before each turn of a GPU. At its power limit it gives all that take turns the clock that their
// mean power allows, and so compares clocks, not times (docs/sm90.md).
constexpr std::chrono::milliseconds kRest{5};
constexpr int64_t kMaxGraphLaunches = 48;
constexpr int64_t kMaxLoops = 100'000;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// A contender that can be run again and again; run() gives the seconds of one launch.
class Run {
 public:
  Run(const Device& device, const Launch& launch) : device_(device), launch_(launch) {
    const double once = first_launch();
    if (device.info().kind == DeviceKind::kCpu) {
      loops_ = std::clamp<int64_t>(static_cast<int64_t>(kCpuSeconds / once), 1, kMaxLoops);
      return;
    }
    const int index = device.info().index;
    void* const stream = device.stream().cuda;
    loops_ = std::clamp<int64_t>(static_cast<int64_t>(kCudaSeconds / once), 4, kMaxGraphLaunches);
    cuda::begin_capture(stream);
    for (int64_t i = 0; i < loops_; ++i) launch_(next_++);
    graph_ = cuda::OwnedGraph(index, cuda::end_capture(stream));
    begin_ = std::make_unique<cuda::OwnedEvent>(index);
    end_ = std::make_unique<cuda::OwnedEvent>(index);
  }

  double run() {
    double seconds = 0;
    if (device_.info().kind == DeviceKind::kCpu) {
      const double start = now();
      for (int64_t i = 0; i < loops_; ++i) launch_(next_++);
      seconds = now() - start;
    } else {
      void* const stream = device_.stream().cuda;
      std::this_thread::sleep_for(kRest);
      cuda::launch_graph(graph_.get(), stream);  // wakes it up
      cuda::record(begin_->get(), stream);
      cuda::launch_graph(graph_.get(), stream);
      cuda::record(end_->get(), stream);
      seconds = cuda::milliseconds(begin_->get(), end_->get()) * 1e-3;
    }
    return seconds / static_cast<double>(loops_);
  }

 private:
  // Of two launches, the first aside, which may load code.
  double first_launch() {
    launch_(next_++);
    device_.synchronize();
    const double start = now();
    launch_(next_++);
    device_.synchronize();
    return std::max(now() - start, 1e-7);
  }

  const Device& device_;
  const Launch& launch_;
  int64_t loops_ = 1, next_ = 0;
  cuda::OwnedGraph graph_;
  std::unique_ptr<cuda::OwnedEvent> begin_, end_;
};

}  // namespace

std::vector<Times> time_in_turns(const Device& device, std::span<const Launch> contenders) {
  std::vector<std::unique_ptr<Run>> runs;
  for (const Launch& launch : contenders) runs.push_back(std::make_unique<Run>(device, launch));
  std::vector<std::vector<double>> seconds(runs.size());
  for (int repeat = -1; repeat < kRepeats; ++repeat) {
    for (size_t j = 0; j < runs.size(); ++j) {
      const size_t i = repeat % 2 == 0 ? j : runs.size() - 1 - j;
      const double s = runs[i]->run();
      if (repeat >= 0) seconds[i].push_back(s);
    }
  }
  std::vector<Times> times;
  for (auto& s : seconds) {
    std::sort(s.begin(), s.end());
    times.push_back({s[s.size() / 2], s.front(), s.back()});
  }
  return times;
}

Times time_one(const Device& device, const Launch& launch) {
  return time_in_turns(device, {&launch, 1})[0];
}

Launch reading(const void* memory, size_t bytes, const Device& device) {
  return [=, &device](int64_t) {
    const auto* words = static_cast<const uint64_t*>(memory);
    std::atomic<uint64_t> sum = 0;  // so that nothing is left out
    device.pool().parallel_for(static_cast<int64_t>(bytes / sizeof(uint64_t)), 4096,
                               [&](int64_t begin, int64_t end) {
                                 sum += std::accumulate(words + begin, words + end, uint64_t{0});
                               });
  };
}

}  // namespace nibble::cases
