#include "checkpoint/shards.h"

#include "tests/checkpoint/model_folder.h"

namespace nibble {
namespace {

using test::expect_error;
using test::SafetensorsText;
using test::TempDir;
using test::write_file;

class Shards : public testing::Test {
 protected:
  void shard(const std::string& file, const std::vector<std::string>& tensors) {
    SafetensorsText text;
    for (const std::string& t : tensors) text.add(t, "U8", "[2]", t.substr(0, 2));
    write_file(dir_.path() / file, text.text());
  }
  void index(const std::string& weight_map) {
    write_file(dir_.path() / "model.safetensors.index.json",
               R"({"metadata":{"total_size":1},"weight_map":)" + weight_map + "}");
  }
  void expect_bad(const std::vector<std::string>& parts, ErrorCode code = ErrorCode::kCheckpoint) {
    expect_error(code, parts, [&] { TensorFiles files(dir_.path()); });
  }
  TempDir dir_;
};

TEST_F(Shards, ReadsASingleFile) {
  shard("model.safetensors", {"bb", "aa"});
  const TensorFiles files(dir_.path());
  ASSERT_EQ(files.all().size(), 2u);
  EXPECT_EQ(files.all()[0].name, "aa");
  ASSERT_NE(files.find("bb"), nullptr);
  EXPECT_EQ(files.find("bb")->data[0], 'b');
  EXPECT_EQ(files.find("cc"), nullptr);
  files.release(files.find("bb")->data);
  EXPECT_EQ(files.find("bb")->data[1], 'b');  // still readable
}

TEST_F(Shards, ReadsTheFilesOfAnIndex) {
  shard("m-1.safetensors", {"aa", "cc"});
  shard("m-2.safetensors", {"bb"});
  index(R"({"aa":"m-1.safetensors","bb":"m-2.safetensors","cc":"m-1.safetensors"})");
  const TensorFiles files(dir_.path());
  ASSERT_EQ(files.all().size(), 3u);
  EXPECT_EQ(files.all()[1].name, "bb");
  EXPECT_EQ(files.all()[1].data[0], 'b');
  EXPECT_EQ(files.all()[1].file->path().filename(), "m-2.safetensors");
}

TEST_F(Shards, RefusesMissingExtraAndDoubledTensors) {
  expect_bad({"no model.safetensors and no model.safetensors.index.json"}, ErrorCode::kIo);
  shard("m-1.safetensors", {"aa", "cc"});
  shard("m-2.safetensors", {"bb"});
  index(R"({"aa":"m-1.safetensors","bb":"m-2.safetensors","cc":"m-1.safetensors",)"
        R"("dd":"m-2.safetensors"})");
  expect_bad({"index.json", "tensor dd is missing from m-2.safetensors"});
  index(R"({"aa":"m-1.safetensors","bb":"m-1.safetensors","cc":"m-1.safetensors"})");
  expect_bad({"tensor bb is missing from m-1.safetensors"});
  index(R"({"aa":"m-1.safetensors","bb":"m-2.safetensors"})");
  expect_bad({"m-1.safetensors", "tensor cc is not in the index"});
  index(R"({"aa":"m-1.safetensors","bb":"m-3.safetensors","cc":"m-1.safetensors"})");
  expect_bad({"m-3.safetensors", "can't open"}, ErrorCode::kIo);
  shard("m-2.safetensors", {"bb", "aa"});
  index(R"({"aa":"m-1.safetensors","bb":"m-2.safetensors","cc":"m-1.safetensors"})");
  expect_bad({"tensor aa is in two files", "m-1.safetensors", "m-2.safetensors"});
  index(R"({"aa":"m-1.safetensors","aa":"m-2.safetensors"})");
  expect_bad({"\"aa\" stands twice"});
}

TEST_F(Shards, RefusesFilesElsewhere) {
  shard("m-1.safetensors", {"aa"});
  const std::vector<std::string> bad = {
      "\"../x.safetensors\"", "\"/etc/passwd\"", "\"..\"", "\"a/b\"", "\"\"", "7",
      "\"a\\\\b\"",           "\"m\\u0000\""};
  for (const std::string& file : bad) {
    index("{\"aa\":" + file + "}");
    expect_bad({"tensor aa is in", "expected the name of a file in the same folder"});
  }
}

TEST_F(Shards, RefusesBrokenIndexes) {
  index("[]");
  expect_bad({"no object \"weight_map\""});
  index("{");
  expect_bad({"model.safetensors.index.json", "parse error"});
  write_file(dir_.path() / "model.safetensors.index.json", "[1]");
  expect_bad({"no object \"weight_map\""});
  write_file(dir_.path() / "model.safetensors.index.json", std::string(100, '['));
  expect_bad({"nested more than 64 deep"});
}

}  // namespace
}  // namespace nibble
