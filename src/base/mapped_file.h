// A read-only memory-mapped file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace nibble {

class MappedFile {
 public:
  // Maps the whole file. Throws kIo, naming the path, where it can't be opened or mapped.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const uint8_t> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }

  // Tells the kernel that these bytes (a part of bytes()) will not be read again soon, so that
  // their pages leave this process's memory. They can still be read: the pages come back from the
  // file.
  void release(std::span<const uint8_t> part) const;

 private:
  std::filesystem::path path_;
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace nibble
