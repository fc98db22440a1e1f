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

// How often a waiter looks (some 50 us) before it gives its core away: on a machine with fewer free
// cores than threads the other side needs that core to make progress.
constexpr int kSpins = 2000;

}  // namespace

ThreadPool::ThreadPool(int threads)
    : size_(threads > 0 ? threads : usable_cores()), shares_(static_cast<size_t>(size_)) {
  threads_.reserve(static_cast<size_t>(size_) - 1);
  for (int worker = 1; worker < size_; ++worker) {
    threads_.emplace_back([this, worker] { worker_loop(worker); });
  }
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  generation_.fetch_add(2);
  generation_.notify_all();
}

// A worker says that it is inside before it looks whether the range is still open, and the caller
// closes the range before it looks whether anyone is inside, all in one order that both agree on:
// so either the worker stays out or the caller waits for it.
void ThreadPool::run_erased(ErasedFn fn, const void* context) {
  fn_ = fn;
  context_ = context;
  generation_.fetch_add(1);
  generation_.notify_all();  // no system call where nobody sleeps
  fn(context, 0);            // takes every piece that no worker has claimed
  generation_.fetch_add(1);
  for (int spins = 0; inside_.load() != 0; ++spins) {
    if (spins < kSpins) {
      cpu_relax();
    } else {
      std::this_thread::yield();
    }
  }
}

void ThreadPool::worker_loop(int worker) {
  uint32_t done = 0;
  for (;;) {
    uint32_t now = generation_.load();
    for (int spins = 0; (now % 2 == 0 || now == done) && !stop_; ++spins) {
      if (spins < kSpins) {
        cpu_relax();
      } else if (active_.load(std::memory_order_relaxed) != 0) {
        std::this_thread::yield();
      } else {
        generation_.wait(now);
      }
      now = generation_.load();
    }
    if (stop_) return;
    inside_.fetch_add(1);
    if (generation_.load() == now) {
      fn_(context_, worker);
      done = now;
    }
    inside_.fetch_sub(1);
  }
}

ThreadPool::Active::Active(ThreadPool& pool) : pool_(pool) { pool_.active_.fetch_add(1); }
ThreadPool::Active::~Active() { pool_.active_.fetch_sub(1); }

}  // namespace nibble
