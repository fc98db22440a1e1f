#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <ctime>
#include <numeric>
#include <vector>

namespace nibble {
namespace {

TEST(ThreadPool, RunCallsEveryWorkerOnce) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    ASSERT_EQ(pool.size(), threads);
    std::vector<int> calls(threads);
    for (int round = 0; round < 1000; ++round) {
      pool.run([&](int worker) { ++calls[worker]; });
    }
    EXPECT_EQ(calls, std::vector<int>(threads, 1000));
  }
}

TEST(ThreadPool, ZeroMeansTheProcessesCores) { EXPECT_GE(ThreadPool().size(), 1); }

TEST(ThreadPool, ParallelForCoversTheRangeOnce) {
  ThreadPool pool(3);
  for (const int64_t n : {0, 1, 2, 7, 16, 1000}) {
    for (const int64_t grain : {1, 4, 16, 2000}) {
      std::vector<int> seen(n);
      pool.parallel_for(n, grain, [&](int64_t begin, int64_t end) {
        EXPECT_EQ(begin % grain, 0);
        EXPECT_TRUE(end % grain == 0 || end == n);
        for (int64_t i = begin; i < end; ++i) ++seen[i];
      });
      EXPECT_EQ(seen, std::vector<int>(n, 1)) << n << " by " << grain;
    }
  }
}

TEST(ThreadPool, OthersTakeThePiecesOfASlowThread) {
  ThreadPool pool(2);
  std::vector<int> owner(64, -1);
  std::atomic<bool> slept{false};
  pool.share(64, 1, [&](int worker, ThreadPool::Parts& parts) {
    int64_t begin, end;
    while (parts.next(begin, end)) {
      // The second half is the other thread's; its first piece takes as long as all the others.
      if (begin == 32 && !slept.exchange(true)) {
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
      }
      for (int64_t i = begin; i < end; ++i) owner[static_cast<size_t>(i)] = worker;
    }
  });
  // Whoever slept had one piece of four and, at most, what it did before.
  EXPECT_EQ(std::count(owner.begin(), owner.end(), -1), 0);
  const int sleeper = owner[32];
  EXPECT_EQ(std::count(owner.begin() + 36, owner.end(), 1 - sleeper), 28);
}

TEST(ThreadPool, ResultsAreVisibleToTheCaller) {
  ThreadPool pool(4);
  const ThreadPool::Active active(pool);
  std::vector<int64_t> sums(pool.size());
  int64_t total = 0;
  for (int round = 0; round < 2000; ++round) {
    pool.run([&](int worker) { sums[worker] += round; });
    total = std::accumulate(sums.begin(), sums.end(), int64_t{0});
  }
  EXPECT_EQ(total, int64_t{4} * 1999 * 2000 / 2);
}

TEST(ThreadPool, SleepsBetweenCalls) {
  ThreadPool pool(4);
  pool.run([](int) {});
  const std::clock_t before = std::clock();  // processor time of all threads
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const double seconds = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
  EXPECT_LT(seconds, 0.1) << "idle workers are spinning";
}

}  // namespace
}  // namespace nibble
