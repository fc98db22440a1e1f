// What needs a process of its own: being killed, a full disk, peak memory.
#include <fmt/format.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "checkpoint/checkpoint.h"
#include "nibble/quantize.h"
#include "tests/quantizer/tiny_model.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

enum Exit { kDone = 0, kFailedIo = 10, kFailed = 11 };

// Quantizes in a child process after `prepare`.
template <class Prepare>
pid_t start(const fs::path& src, const fs::path& dst, Prepare prepare) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  prepare();
  try {
    quantize_checkpoint(src, dst, {}, Device::cpu(2));
    ::_exit(kDone);
  } catch (const Error& e) {
    ::_exit(e.code() == ErrorCode::kIo ? kFailedIo : kFailed);
  }
}

int wait_for(pid_t child, rusage* usage = nullptr) {
  int status = 0;
  EXPECT_EQ(::wait4(child, &status, 0, usage), child);
  return status;
}

TEST(QuantizeProcess, KilledAtAnyMomentLeavesAllOrNothing) {
  test::TempDir dir;
  const fs::path src = dir.path() / "src", dst = dir.path() / "dst";
  test::TinyModel(30).write(src);
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_EQ(wait_for(start(src, dst, [] {})), kDone);
  const auto whole = std::chrono::steady_clock::now() - begin;

  int killed = 0;
  constexpr int kRounds = 25;
  for (int round = 0; round < kRounds; ++round) {
    fs::remove_all(dst);
    const pid_t child = start(src, dst, [] {});
    std::this_thread::sleep_for(whole * round / kRounds);
    ::kill(child, SIGKILL);
    killed += WIFSIGNALED(wait_for(child));
    if (fs::exists(dst)) {  // it had just finished
      EXPECT_EQ(Checkpoint::open(dst).modules().size(), 30u * 7 + 1);
    }
  }
  EXPECT_GT(killed, kRounds / 4) << "the test did not hit the work";
  // A finished run clears what the killed ones left.
  fs::remove_all(dst);
  ASSERT_EQ(wait_for(start(src, dst, [] {})), kDone);
  EXPECT_EQ(test::names_in(dir.path()), (std::set<std::string>{"src", "dst"}));
  EXPECT_EQ(Checkpoint::open(dst).linear("model.layers.29.mlp.up_proj").k, 64);
}

// A file size limit is the full disk that needs no root: the system refuses the write all the same.
TEST(QuantizeProcess, FullDiskIsAnIoError) {
  test::TempDir dir;
  const fs::path src = dir.path() / "src", dst = dir.path() / "dst";
  test::TinyModel(4).write(src);
  for (const rlim_t limit : {rlim_t{100}, rlim_t{20'000}}) {
    const pid_t child = start(src, dst, [&] {
      ::signal(SIGXFSZ, SIG_IGN);
      const rlimit size{limit, limit};
      ::setrlimit(RLIMIT_FSIZE, &size);
    });
    const int status = wait_for(child);
    ASSERT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), kFailedIo);
    EXPECT_EQ(test::names_in(dir.path()), std::set<std::string>{"src"});
  }
}

TEST(QuantizeProcess, PeakMemoryDoesNotGrowWithTheModel) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "the sanitizer's own memory would be counted";
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
  GTEST_SKIP() << "the sanitizer's own memory would be counted";
#endif
#endif
  // 24 matrices of 32 MiB in a sparse file: 768 MiB that take no room on disk.
  constexpr int64_t kMatrix = 4096 * 4096 * 2;
  constexpr int kLayers = 24;
  test::TempDir dir;
  const fs::path src = dir.path() / "src";
  fs::create_directory(src);
  std::string header;
  for (int i = 0; i < kLayers; ++i) {
    header += fmt::format(
        R"({}"model.layers.{}.mlp.{}_proj.weight":{{"dtype":"BF16","shape":[4096,4096],"data_offsets":[{},{}]}})",
        i == 0 ? "{" : ",", i / 2, i % 2 == 0 ? "gate" : "up", i * kMatrix, (i + 1) * kMatrix);
  }
  header += "}";
  test::write_file(src / "model.safetensors", test::raw_safetensors(header, ""));
  fs::resize_file(src / "model.safetensors", 8 + header.size() + kLayers * kMatrix);
  test::write_file(src / "config.json", R"({"model_type": "llama"})");

  rusage usage{};
  ASSERT_EQ(wait_for(start(src, dir.path() / "dst", [] {}), &usage), kDone);
  const int64_t limit = 3 * kMatrix + (int64_t{256} << 20);
  EXPECT_LT(usage.ru_maxrss * 1024, limit);
  // The rule is not met by its 256 MiB alone.
  EXPECT_LT(usage.ru_maxrss * 1024, 3 * kMatrix) << "more than three times the largest tensor";
}

}  // namespace
}  // namespace nibble
