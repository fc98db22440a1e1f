// Builds small model folders for tests, byte by byte, without the code under test.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "nibble/error.h"

namespace nibble::test {

// A folder that goes away with the object.
class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "nibble-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path_ = name;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// Always a new file: an old one may still be mapped.
inline void write_file(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::remove(path);
  std::ofstream(path, std::ios::binary) << text;
}

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// A safetensors file of this header text and data.
inline std::string raw_safetensors(const std::string& header, const std::string& data) {
  std::string length(8, '\0');
  for (int i = 0; i < 8; ++i) length[i] = static_cast<char>(header.size() >> 8 * i);
  return length + header + data;
}

class SafetensorsText {
 public:
  SafetensorsText& add(const std::string& name, const std::string& dtype, const std::string& shape,
                       const std::string& bytes) {
    header_ += (header_.empty() ? "\"" : ",\"") + name + "\":{\"dtype\":\"" + dtype +
               "\",\"shape\":" + shape + ",\"data_offsets\":[" + std::to_string(data_.size()) +
               "," + std::to_string(data_.size() + bytes.size()) + "]}";
    data_ += bytes;
    return *this;
  }
  std::string text() const { return raw_safetensors("{" + header_ + "}", data_); }

 private:
  std::string header_, data_;
};

template <class T>
std::string bytes_of(std::initializer_list<T> values) {
  std::string result(values.size() * sizeof(T), '\0');
  std::memcpy(result.data(), std::data(values), result.size());
  return result;
}
inline std::string f32(float value) { return bytes_of({value}); }
inline std::string filled(size_t count, int byte) {
  return std::string(count, static_cast<char>(byte));
}

// Runs fn and expects nibble::Error of this code whose message holds all of `parts`.
inline void expect_error(ErrorCode code, const std::vector<std::string>& parts,
                         const std::function<void()>& fn) {
  try {
    fn();
  } catch (const Error& e) {
    EXPECT_STREQ(to_string(e.code()), to_string(code)) << e.what();
    for (const std::string& part : parts) EXPECT_THAT(e.what(), testing::HasSubstr(part));
    return;
  }
  ADD_FAILURE() << "no error, expected one with: " << testing::PrintToString(parts);
}

}  // namespace nibble::test
