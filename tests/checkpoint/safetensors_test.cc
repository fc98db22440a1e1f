#include "checkpoint/safetensors.h"

#include <fmt/format.h>

#include <chrono>

#include "tests/checkpoint/model_folder.h"

namespace nibble {
namespace {

using test::expect_error;
using test::filled;
using test::raw_safetensors;
using test::SafetensorsText;

std::vector<TensorInfo> parse(const std::string& text) {
  return parse_safetensors({reinterpret_cast<const uint8_t*>(text.data()), text.size()}, "x.st");
}

void expect_bad(const std::string& text, const std::vector<std::string>& parts) {
  expect_error(ErrorCode::kCheckpoint, parts, [&] { parse(text); });
}

std::string one(const std::string& tensor_json, size_t data) {
  return raw_safetensors("{\"w\":" + tensor_json + "}", filled(data, 0));
}

TEST(Safetensors, ReadsTensorsInOrderOfTheirData) {
  const std::string header = R"({"__metadata__":{"format":"pt"},)"
                             R"("b":{"dtype":"F32","shape":[],"data_offsets":[6,10]},)"
                             R"("a":{"shape":[3,1],"data_offsets":[0,6],"dtype":"BF16"},)"
                             R"("empty":{"dtype":"U8","shape":[0,5],"data_offsets":[10,10]}})";
  const auto tensors = parse(raw_safetensors(header + "   ", filled(10, 0)));
  ASSERT_EQ(tensors.size(), 3u);
  const uint64_t data = 8 + header.size() + 3;
  EXPECT_EQ(tensors[0].name, "a");
  EXPECT_EQ(tensors[0].dtype, DType::kBF16);
  EXPECT_EQ(tensors[0].shape, (std::vector<int64_t>{3, 1}));
  EXPECT_EQ(tensors[0].begin, data);
  EXPECT_EQ(tensors[0].end, data + 6);
  EXPECT_EQ(tensors[0].numel(), 3);
  EXPECT_EQ(tensors[1].name, "b");
  EXPECT_TRUE(tensors[1].shape.empty());
  EXPECT_EQ(tensors[1].numel(), 1);
  EXPECT_EQ(tensors[2].name, "empty");
  EXPECT_EQ(tensors[2].numel(), 0);
}

TEST(Safetensors, KnowsEveryDtype) {
  const std::pair<const char*, DType> known[] = {
      {"F32", DType::kF32},        {"F16", DType::kF16},   {"BF16", DType::kBF16},
      {"F8_E4M3", DType::kF8E4M3}, {"U8", DType::kU8},     {"F8_E5M2", DType::kF8E5M2},
      {"I8", DType::kI8},          {"I32", DType::kI32},   {"I64", DType::kI64},
      {"BOOL", DType::kBool},      {"F8_E8M0", DType::kU8}};
  for (const auto& [name, dtype] : known) {
    const auto text = SafetensorsText().add("w", name, "[1]", filled(size_of(dtype), 0)).text();
    EXPECT_EQ(parse(text).at(0).dtype, dtype) << name;
  }
}

TEST(Safetensors, RefusesTruncatedAndOversizedHeaders) {
  expect_bad("", {"x.st", "0 bytes", "too short"});
  expect_bad("1234567", {"7 bytes", "too short"});
  const std::string good = SafetensorsText().add("w", "U8", "[4]", "abcd").text();
  EXPECT_EQ(parse(good).size(), 1u);
  for (size_t cut = 0; cut < good.size(); ++cut) {
    expect_bad(good.substr(0, cut), {"x.st"});
  }
  expect_bad(good.substr(0, 20), {"truncated", "but 12 follow"});
  expect_bad(filled(8, 0xFF) + good, {"18446744073709551615 bytes", "at most 100000000"});
  expect_bad(filled(8, 0) + good, {"not JSON"});
}

TEST(Safetensors, RefusesOffsetsThatDoNotFit) {
  expect_bad(one(R"({"dtype":"U8","shape":[9],"data_offsets":[0,9]})", 8),
             {"tensor w", "0 to 9", "outside the file, which has 8"});
  expect_bad(one(R"({"dtype":"U8","shape":[4],"data_offsets":[4,8]})", 8),
             {"bytes 0 to 4", "belong to no tensor"});
  expect_bad(one(R"({"dtype":"U8","shape":[4],"data_offsets":[0,4]})", 8),
             {"end at byte 4", "but 8 are there"});
  expect_bad(one(R"({"dtype":"U8","shape":[4],"data_offsets":[4,0]})", 8), {"[4, 0]"});
  expect_bad(one(R"({"dtype":"U8","shape":[4],"data_offsets":[0]})", 8), {"[0]"});
  expect_bad(one(R"({"dtype":"U8","shape":[4],"data_offsets":[0,4,8]})", 8), {"[0, 4, 8]"});
  expect_bad(one(R"({"dtype":"U8","shape":[4],"data_offsets":[-1,4]})", 8), {"-1", "w"});
  expect_bad(one(R"({"dtype":"U8","shape":[4],"data_offsets":[0,18446744073709551615]})", 8),
             {"outside the file"});
  expect_bad(raw_safetensors(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                             R"("b":{"dtype":"U8","shape":[5],"data_offsets":[3,8]}})",
                             filled(8, 0)),
             {"tensor b", "byte 3", "overlaps"});
}

TEST(Safetensors, RefusesShapesThatDoNotFit) {
  expect_bad(one(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})", 8),
             {"tensor w is F32 [3]", "expected 12 bytes, found 8"});
  expect_bad(one(R"({"dtype":"U8","shape":[-4],"data_offsets":[0,4]})", 4), {"-4", "w.shape"});
  expect_bad(one(R"({"dtype":"U8","shape":[4.0],"data_offsets":[0,4]})", 4), {"4.0", "w.shape"});
  expect_bad(one(R"({"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]})", 0),
             {"more than 2^63"});
  expect_bad(one(R"({"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,0]})", 0),
             {"dimension of 18446744073709551615"});
  expect_bad(one(R"({"dtype":"U8","shape":4,"data_offsets":[0,4]})", 4), {"w.shape"});
  expect_bad(one(R"({"dtype":"U8","shape":[[4]],"data_offsets":[0,4]})", 4), {"an array"});
}

TEST(Safetensors, RefusesWrongHeaders) {
  expect_bad(one(R"({"dtype":"F33","shape":[4],"data_offsets":[0,4]})", 4),
             {"tensor w", "\"F33\""});
  expect_error(ErrorCode::kUnsupported, {"tensor w", "F64"},
               [] { parse(one(R"({"dtype":"F64","shape":[1],"data_offsets":[0,8]})", 8)); });
  expect_bad(one(R"({"shape":[4],"data_offsets":[0,4]})", 4), {"tensor w has no dtype"});
  expect_bad(one(R"({"dtype":"U8","data_offsets":[0,4]})", 4), {"tensor w has no shape"});
  expect_bad(one(R"({"dtype":"U8","shape":[4]})", 4), {"tensor w has no data_offsets"});
  expect_bad(one(R"({"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]})", 4),
             {"two dtypes"});
  expect_bad(one(R"({"dtype":"U8","shape":[4],"shape":[4],"data_offsets":[0,4]})", 4),
             {"an array"});
  expect_bad(one(R"({"dtype":"U8","shape":[4],"strides":[1],"data_offsets":[0,4]})", 4),
             {"strides"});
  expect_bad(one("{\"dtype\":{}}", 0), {"an object"});
  expect_bad(one("7", 0), {"the number 7"});
  expect_bad(raw_safetensors("[]", ""), {"not a JSON object"});
  expect_bad(raw_safetensors("null", ""), {"null"});
  expect_bad(raw_safetensors("{} x", ""), {"not JSON"});
  expect_bad(raw_safetensors("{\"a", ""), {"not JSON"});
  expect_bad(raw_safetensors("{\"\xff\":1}", ""), {"not JSON"});
  expect_bad(raw_safetensors(R"({"__metadata__":{"a":1}})", ""), {"the number 1"});
  expect_bad(raw_safetensors(filled(100000, '['), ""), {"an array"});
  EXPECT_TRUE(parse(raw_safetensors("{}", "")).empty());
}

TEST(Safetensors, RefusesDoubledNames) {
  expect_bad(raw_safetensors(R"({"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                             R"("w":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
                             filled(8, 0)),
             {"tensor w is listed twice"});
}

TEST(Safetensors, OpensManyTensorsQuickly) {
  SafetensorsText text;
  for (int i = 0; i < 2000; ++i) {
    text.add(fmt::format("model.layers.{}.mlp.up_proj.weight", i), "U8", "[2,2]", "abcd");
  }
  const std::string file = text.text();
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(parse(file).size(), 2000u);
  // About 2 ms; the bound only says that nothing is quadratic.
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(500));
}

}  // namespace
}  // namespace nibble
