// A fixed set of threads that share one range of work at a time with the caller.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

namespace nibble {

class ThreadPool {
  // What is left of one worker's part of the range; a cache line each, so that claims from it cost
  // nothing as long as nobody else is done.
  struct alignas(64) Share {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };

 public:
  // `threads` counts the caller: 1 starts no thread. 0 means every core this process may use.
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }

  // The pieces of a range that one worker gets: first those of its own contiguous part, in order,
  // then what the others have not begun.
  class Parts {
   public:
    // Claims the next piece [begin, end); false where none is left.
    bool next(int64_t& begin, int64_t& end);

   private:
    friend class ThreadPool;
    Parts(std::vector<Share>& shares, int worker, int64_t step)
        : shares_(shares), worker_(static_cast<size_t>(worker)), step_(step) {}
    std::vector<Share>& shares_;
    size_t worker_;
    size_t tried_ = 0;  // shares that were found empty
    int64_t step_;
  };

  // Cuts [0, n) into pieces whose inner borders are multiples of `grain` and calls
  // fn(worker, parts) on the caller, worker 0, and on every other thread that comes in time: a
  // thread that another program keeps from running is not waited for, the others take its pieces.
  // Returns when all pieces are done. fn must not throw and must not call the pool.
  template <class Fn>
  void share(int64_t n, int64_t grain, Fn&& fn) {
    const int64_t units = (n + grain - 1) / grain;
    // Few enough pieces that claiming them costs nothing, enough that the last ones end together.
    const int64_t step = std::max<int64_t>(1, units / (size_ * kPiecesEach)) * grain;
    for (int64_t i = 0; i < size_; ++i) {
      Share& part = shares_[static_cast<size_t>(i)];
      part.next.store(units * i / size_ * grain, std::memory_order_relaxed);
      part.end = std::min(units * (i + 1) / size_ * grain, n);
    }
    const auto work = [&](int worker) {
      Parts parts(shares_, worker, step);
      fn(worker, parts);
    };
    if (units <= 1 || size_ == 1) return work(0);
    run_erased([](const void* f, int worker) { (*static_cast<decltype(&work)>(f))(worker); },
               &work);
  }

  // The same for work that does not depend on who does it: fn(begin, end) for each piece.
  template <class Fn>
  void parallel_for(int64_t n, int64_t grain, Fn&& fn) {
    share(n, grain, [&](int, Parts& parts) {
      int64_t begin, end;
      while (parts.next(begin, end)) fn(begin, end);
    });
  }

  // Calls fn(i) for i = 0 .. size()-1, once each, on as many threads where all are free to run.
  template <class Fn>
  void run(Fn&& fn) {
    parallel_for(size_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) fn(static_cast<int>(i));
    });
  }

  // While an Active object lives, idle workers never sleep. Hold one over a forward pass, not
  // between calls.
  class Active {
   public:
    explicit Active(ThreadPool& pool);
    ~Active();
    Active(const Active&) = delete;
    Active& operator=(const Active&) = delete;

   private:
    ThreadPool& pool_;
  };

 private:
  static constexpr int64_t kPiecesEach = 8;
  using ErasedFn = void (*)(const void* fn, int worker);
  void run_erased(ErasedFn fn, const void* context);
  void worker_loop(int worker);

  int size_;
  std::vector<Share> shares_;
  // How often a range was opened or closed (odd: open) and, in the low bits, how many workers are
  // at it: one word, so that coming in and closing can't cross, beside what a worker reads next.
  alignas(64) std::atomic<uint32_t> state_{0};
  ErasedFn fn_ = nullptr;
  const void* context_ = nullptr;
  alignas(64) std::atomic<int> active_{0};
  std::atomic<bool> stop_{false};
  std::vector<std::jthread> threads_;
};

inline bool ThreadPool::Parts::next(int64_t& begin, int64_t& end) {
  for (; tried_ < shares_.size(); ++tried_) {
    Share& part = shares_[(worker_ + tried_) % shares_.size()];
    if (part.next.load(std::memory_order_relaxed) >= part.end) continue;
    begin = part.next.fetch_add(step_, std::memory_order_relaxed);
    if (begin >= part.end) continue;
    end = std::min(begin + step_, part.end);
    return true;
  }
  return false;
}

}  // namespace nibble
