#include "base/mapped_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "nibble/error.h"

namespace nibble {
namespace {

class MappedFileTest : public testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove_all(dir_); }
  std::filesystem::path write(const std::string& bytes) {
    std::filesystem::create_directories(dir_);
    std::ofstream(dir_ / "file", std::ios::binary) << bytes;
    return dir_ / "file";
  }
  std::filesystem::path dir_ =
      std::filesystem::temp_directory_path() / ("mapped_file_test." + std::to_string(::getpid()));
};

TEST_F(MappedFileTest, HoldsTheBytes) {
  std::string bytes(100'000, 'a');
  bytes[70'000] = 'b';
  const MappedFile file(write(bytes));
  EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), file.bytes().begin(), file.bytes().end()));
}

TEST_F(MappedFileTest, ReleasedPagesCanBeReadAgain) {
  const MappedFile file(write(std::string(50'000, 'x')));
  file.release(file.bytes().subspan(100, 40'000));
  for (const uint8_t byte : file.bytes()) ASSERT_EQ(byte, 'x');
}

TEST_F(MappedFileTest, EmptyFile) { EXPECT_TRUE(MappedFile(write("")).bytes().empty()); }

TEST_F(MappedFileTest, ErrorsNameThePath) {
  for (const std::filesystem::path path : {"/nowhere/at/all", "/tmp"}) {
    try {
      MappedFile file(path);
      FAIL() << path;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kIo);
      EXPECT_NE(std::string(e.what()).find(path.string()), std::string::npos) << e.what();
    }
  }
}

}  // namespace
}  // namespace nibble
