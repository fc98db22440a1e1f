#include "checkpoint/writer.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "checkpoint/shards.h"
#include "tests/checkpoint/model_folder.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using test::expect_error;
using test::read_file;
using test::TempDir;
using test::write_file;

std::vector<uint8_t> counted(size_t count, int start) {
  std::vector<uint8_t> bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<uint8_t>(start + i);
  return bytes;
}

std::vector<std::string> names_in(const fs::path& dir) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(dir)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

TEST(Writer, WritesOneFileFromManyThreads) {
  const TempDir dir;
  const fs::path dst = dir.path() / "out";
  std::vector<OutputTensor> plan = {{"b", DType::kU8, {3}}, {"s", DType::kF32, {}}};
  for (int i = 0; i < 50; ++i) {
    plan.push_back({fmt::format("t{}", i), DType::kBF16, {10, i}});
  }
  CheckpointWriter writer(dst, plan);
  EXPECT_EQ(writer.total_bytes(), 3 + 4 + 20 * (49 * 50 / 2));
  writer.write("b", counted(2, 1), 1);  // in parts, in any order
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = t; i < 50; i += 4) {
        writer.write(fmt::format("t{}", i), counted(static_cast<size_t>(20 * i), i));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  writer.write("b", counted(1, 0), 0);
  const float one = 1.0f;
  writer.write("s", {reinterpret_cast<const uint8_t*>(&one), 4});
  writer.add_file("config.json", "{}");
  write_file(dir.path() / "tokenizer.json", "tok");
  writer.copy_file(dir.path() / "tokenizer.json");
  EXPECT_FALSE(fs::exists(dst));
  writer.finish();
  EXPECT_THAT(names_in(dst),
              testing::ElementsAre("config.json", "model.safetensors", "tokenizer.json"));
  EXPECT_THAT(names_in(dir.path()), testing::ElementsAre("out", "tokenizer.json"));
  EXPECT_EQ(read_file(dst / "tokenizer.json"), "tok");

  const TensorFiles files(dst);
  ASSERT_EQ(files.all().size(), 52u);
  EXPECT_THAT(files.find("b")->data, testing::ElementsAre(0, 1, 2));
  EXPECT_EQ(files.find("s")->begin % 8, 0u);  // wide types first, so aligned
  for (int i = 0; i < 50; ++i) {
    const StoredTensor* t = files.find(fmt::format("t{}", i));
    ASSERT_NE(t, nullptr);
    EXPECT_THAT(t->data, testing::ElementsAreArray(counted(static_cast<size_t>(20 * i), i)));
  }
}

TEST(Writer, SplitsIntoShardsWithAnIndex) {
  const TempDir dir;
  const fs::path dst = dir.path() / "out";
  {
    CheckpointWriter writer(dst,
                            {{"a", DType::kU8, {60}},
                             {"b", DType::kU8, {40}},
                             {"c", DType::kU8, {500}},
                             {"d", DType::kU8, {1}}},
                            100);
    writer.write("a", counted(60, 1));
    writer.write("b", counted(40, 2));
    writer.write("c", counted(500, 3));
    writer.write("d", counted(1, 4));
    writer.finish();
  }
  EXPECT_THAT(
      names_in(dst),
      testing::ElementsAre("model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                           "model-00003-of-00003.safetensors", "model.safetensors.index.json"));
  EXPECT_THAT(read_file(dst / "model.safetensors.index.json"),
              testing::HasSubstr("\"total_size\": 601"));
  const TensorFiles files(dst);
  EXPECT_EQ(files.find("b")->file->path().filename(), "model-00001-of-00003.safetensors");
  EXPECT_EQ(files.find("c")->file->path().filename(), "model-00002-of-00003.safetensors");
  EXPECT_EQ(files.find("d")->data[0], 4);
}

TEST(Writer, RefusesWrongUse) {
  const TempDir dir;
  const fs::path dst = dir.path() / "out";
  {
    CheckpointWriter writer(dst, {{"a", DType::kU8, {4}}});
    expect_error(ErrorCode::kInvalidArgument, {"tensor b was not planned"},
                 [&] { writer.write("b", counted(1, 0)); });
    expect_error(ErrorCode::kInvalidArgument, {"tensor a", "bytes 2 to 5 of 4"},
                 [&] { writer.write("a", counted(3, 0), 2); });
    writer.write("a", counted(3, 0));
    expect_error(ErrorCode::kInternal, {"tensor a", "3 of 4 bytes"}, [&] { writer.finish(); });
  }
  EXPECT_TRUE(names_in(dir.path()).empty());
  expect_error(ErrorCode::kInvalidArgument, {"tensor a is planned twice"}, [&] {
    CheckpointWriter(dst, {{"a", DType::kU8, {4}}, {"a", DType::kU8, {4}}});
  });
  expect_error(ErrorCode::kInvalidArgument, {"tensor a", "impossible shape"}, [&] {
    CheckpointWriter(dst, {{"a", DType::kF32, {int64_t{1} << 62}}});
  });
  EXPECT_TRUE(names_in(dir.path()).empty());
  fs::create_directory(dst);
  expect_error(ErrorCode::kInvalidArgument, {"out", "already exists"},
               [&] { CheckpointWriter(dst, {}); });
  expect_error(ErrorCode::kIo, {"none/out.tmp-", "No such file"},
               [&] { CheckpointWriter(dir.path() / "none" / "out", {}); });
}

TEST(Writer, TakesATrailingSlash) {
  const TempDir dir;
  CheckpointWriter writer(dir.path() / "out/", {});
  writer.finish();
  EXPECT_THAT(names_in(dir.path()), testing::ElementsAre("out"));
}

TEST(Writer, AKilledProcessLeavesNoCheckpointAndIsCleanedUpAfter) {
  const TempDir dir;
  const fs::path dst = dir.path() / "out";
  fs::create_directory(dir.path() / "out.tmp-backup");  // a user's own
  const pid_t child = fork();
  if (child == 0) {
    CheckpointWriter writer(dst, {{"a", DType::kU8, {1000}}});
    writer.write("a", counted(500, 0));
    ::raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_FALSE(fs::exists(dst));
  ASSERT_EQ(names_in(dir.path()).size(), 2u);  // its temporary folder is still there
  {
    CheckpointWriter writer(dst, {{"a", DType::kU8, {1}}});
    ASSERT_EQ(names_in(dir.path()).size(), 2u);
    // A writer that lives is left alone by another.
    CheckpointWriter other(dst, {{"a", DType::kU8, {1}}});
    EXPECT_EQ(names_in(dir.path()).size(), 3u);
    writer.write("a", counted(1, 7));
    writer.finish();
    other.write("a", counted(1, 8));
    expect_error(ErrorCode::kIo, {"out", "File exists"}, [&] { other.finish(); });
  }
  EXPECT_THAT(names_in(dir.path()), testing::ElementsAre("out", "out.tmp-backup"));
  EXPECT_EQ(TensorFiles(dst).find("a")->data[0], 7);
}

// In a child: limits and mounts must not reach the other tests. 0: as expected.
template <class Fn>
int in_child(Fn fn) {
  const pid_t child = fork();
  if (child == 0) ::_exit(fn());
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

constexpr int kNoMount = 77;

TEST(Writer, AFullDiskIsAnErrorAndLeavesNothing) {
  const TempDir dir;
  const int result = in_child([&] {
    if (::mount("nibble-test", dir.path().c_str(), "tmpfs", 0, "size=64k") != 0) return kNoMount;
    int code = 1;
    try {
      CheckpointWriter writer(dir.path() / "out", {{"a", DType::kU8, {1 << 20}}});
    } catch (const Error& e) {
      const bool good = e.code() == ErrorCode::kIo &&
                        std::string(e.what()).find("No space left") != std::string::npos;
      code = good && fs::is_empty(dir.path()) ? 0 : 2;
    }
    // The model fits, the file beside it does not.
    try {
      CheckpointWriter writer(dir.path() / "out", {{"a", DType::kU8, {1 << 14}}});
      writer.add_file("big", std::string(1 << 17, 'x'));
      code = 3;
    } catch (const Error& e) {
      if (std::string(e.what()).find("big: can't write: No space left") == std::string::npos)
        code = 4;
    }
    if (!fs::is_empty(dir.path())) code = 5;
    ::umount(dir.path().c_str());
    return code;
  });
  if (result == kNoMount) GTEST_SKIP() << "may not mount a small file system here";
  EXPECT_EQ(result, 0);
}

TEST(Writer, AFileTooLargeIsAnErrorAndLeavesNothing) {
  const TempDir dir;
  EXPECT_EQ(in_child([&] {
              ::signal(SIGXFSZ, SIG_IGN);
              const rlimit limit{4096, 4096};
              ::setrlimit(RLIMIT_FSIZE, &limit);
              try {
                CheckpointWriter writer(dir.path() / "out", {{"a", DType::kU8, {1 << 20}}});
              } catch (const Error& e) {
                return e.code() == ErrorCode::kIo && fs::is_empty(dir.path()) ? 0 : 2;
              }
              return 1;
            }),
            0);
}

}  // namespace
}  // namespace nibble
