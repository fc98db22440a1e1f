// Pieces of work that threads take as they become free.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>

#include "base/thread_pool.h"

namespace nibble {

// Calls fn(worker, chunk) for chunk = 0 .. count-1 on the pool's threads. Taken one by one, not in
// equal parts: another thread is writing files meanwhile and keeps some core busy. fn may throw;
// the first exception is passed on when all threads have stopped.
template <class Fn>
void for_each_chunk(ThreadPool& pool, int64_t count, Fn fn) {
  std::atomic<int64_t> next{0};
  std::mutex mutex;
  std::exception_ptr error;
  pool.run([&](int worker) {
    try {
      for (int64_t chunk = next++; chunk < count; chunk = next++) fn(worker, chunk);
    } catch (...) {
      next = count;
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
    }
  });
  if (error) std::rethrow_exception(error);
}

}  // namespace nibble
