#include "base/thread_pool.h"

#include <sched.h>

#include <algorithm>

namespace nibble {
namespace {

void cpu_relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Cores of this process's affinity mask: a container's share, which hardware_concurrency may
// exceed.
int usable_cores() {
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

// How often a waiter looks before it gives its core away for a moment: on a machine with fewer free
// cores than threads the other side needs that core to make progress.
constexpr int kSpinsBeforeYield = 2000;

}  // namespace

ThreadPool::ThreadPool(int threads) : size_(threads > 0 ? threads : usable_cores()) {
  threads_.reserve(size_ - 1);
  for (int worker = 1; worker < size_; ++worker) {
    threads_.emplace_back([this, worker] { worker_loop(worker); });
  }
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  generation_.fetch_add(1);
  generation_.notify_all();
}

void ThreadPool::run_erased(ErasedFn fn, void* context) {
  fn_ = fn;
  context_ = context;
  pending_.store(size_ - 1, std::memory_order_relaxed);
  generation_.fetch_add(1);
  generation_.notify_all();  // no system call where nobody sleeps
  fn(context, 0);
  for (int spins = 0; pending_.load(std::memory_order_acquire) != 0; ++spins) {
    if (spins < kSpinsBeforeYield) {
      cpu_relax();
    } else {
      std::this_thread::yield();
    }
  }
}

void ThreadPool::worker_loop(int worker) {
  uint32_t seen = 0;
  for (;;) {
    int spins = 0;
    while (generation_.load(std::memory_order_acquire) == seen) {
      if (active_.load(std::memory_order_relaxed) == 0) {
        generation_.wait(seen, std::memory_order_acquire);
      } else if (++spins < kSpinsBeforeYield) {
        cpu_relax();
      } else {
        std::this_thread::yield();
      }
    }
    // run() waits for every worker before the next generation, so none is ever skipped.
    ++seen;
    if (stop_) return;
    fn_(context_, worker);
    pending_.fetch_sub(1, std::memory_order_release);
  }
}

ThreadPool::Active::Active(ThreadPool& pool) : pool_(pool) { pool_.active_.fetch_add(1); }
ThreadPool::Active::~Active() { pool_.active_.fetch_sub(1); }

}  // namespace nibble
