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

constexpr uint32_t kWorker = 1;       // in the low bits of the state
constexpr uint32_t kTurn = 1u << 12;  // what opens a range, and what closes it
constexpr int kMaxThreads = kTurn / 2;

uint32_t turn(uint32_t state) { return state / kTurn; }
uint32_t workers_inside(uint32_t state) { return state % kTurn; }

}  // namespace

ThreadPool::ThreadPool(int threads)
    : size_(std::min(threads > 0 ? threads : usable_cores(), kMaxThreads)),
      shares_(static_cast<size_t>(size_)) {
  threads_.reserve(static_cast<size_t>(size_) - 1);
  for (int worker = 1; worker < size_; ++worker) {
    threads_.emplace_back([this, worker] { worker_loop(worker); });
  }
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  state_.fetch_add(2 * kTurn);
  state_.notify_all();
}

void ThreadPool::run_erased(ErasedFn fn, const void* context) {
  fn_ = fn;
  context_ = context;
  state_.fetch_add(kTurn);
  state_.notify_all();  // no system call where nobody sleeps
  fn(context, 0);       // takes every piece that no worker has claimed
  uint32_t state = state_.fetch_add(kTurn);
  for (int spins = 0; workers_inside(state) != 0; ++spins) {
    if (spins < kSpins) {
      cpu_relax();
    } else {
      std::this_thread::yield();
    }
    state = state_.load();
  }
}

void ThreadPool::worker_loop(int worker) {
  uint32_t done = 0;  // the last range
  const auto is_new = [&](uint32_t state) { return turn(state) % 2 == 1 && turn(state) != done; };
  for (;;) {
    uint32_t state = state_.load();
    for (int spins = 0; !is_new(state) && !stop_; ++spins) {
      if (spins < kSpins) {
        cpu_relax();
      } else if (active_.load(std::memory_order_relaxed) != 0) {
        std::this_thread::yield();
      } else {
        state_.wait(state);
      }
      state = state_.load();
    }
    if (stop_) return;
    state = state_.fetch_add(kWorker);
    // It may have been closed in between, and the next one opened; what is closed stays unread.
    if (is_new(state)) {
      fn_(context_, worker);
      done = turn(state);
    }
    state_.fetch_sub(kWorker);
  }
}

ThreadPool::Active::Active(ThreadPool& pool) : pool_(pool) { pool_.active_.fetch_add(1); }
ThreadPool::Active::~Active() { pool_.active_.fetch_sub(1); }

}  // namespace nibble
