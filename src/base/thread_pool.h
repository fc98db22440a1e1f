// A fixed set of threads that run one function at a time, together with the caller.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace nibble {

class ThreadPool {
 public:
  // `threads` counts the caller: 1 starts no thread. 0 means every core this process may use.
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }

  // Calls fn(worker) for worker = 0 .. size()-1, once each, on as many threads; the caller is
  // worker 0. Returns when all are done. fn must not throw and must not call run().
  template <class Fn>
  void run(Fn&& fn) {
    if (size_ == 1) {
      fn(0);
      return;
    }
    using F = std::remove_reference_t<Fn>;
    run_erased([](void* f, int worker) { (*static_cast<F*>(f))(worker); },
               const_cast<std::remove_const_t<F>*>(&fn));
  }

  // Splits [0, n) into size() contiguous parts whose inner borders are multiples of `grain`;
  // calls fn(begin, end) for each part that is not empty.
  template <class Fn>
  void parallel_for(int64_t n, int64_t grain, Fn&& fn) {
    const int64_t units = (n + grain - 1) / grain;
    if (units <= 1 || size_ == 1) {
      if (n > 0) fn(int64_t{0}, n);
      return;
    }
    run([&](int worker) {
      const int64_t begin = units * worker / size_ * grain;
      const int64_t end = units * (worker + 1) / size_ * grain;
      if (begin < end && begin < n) fn(begin, end < n ? end : n);
    });
  }

  // While an Active object lives, idle workers spin for the next run() instead of sleeping, so that
  // a hand-off costs well under a microsecond. Hold one over a forward pass, never between calls.
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
  using ErasedFn = void (*)(void* fn, int worker);
  void run_erased(ErasedFn fn, void* context);
  void worker_loop(int worker);

  int size_;
  ErasedFn fn_ = nullptr;
  void* context_ = nullptr;
  alignas(64) std::atomic<uint32_t> generation_{0};  // bumped once per run(); workers wait on it
  alignas(64) std::atomic<int> pending_{0};
  alignas(64) std::atomic<int> active_{0};
  std::atomic<bool> stop_{false};
  std::vector<std::jthread> threads_;
};

}  // namespace nibble
