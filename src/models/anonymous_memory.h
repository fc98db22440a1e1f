// Zeroed memory whose pages cost nothing until they are written.
#pragma once

#include <cstddef>

namespace nibble {

class AnonymousMemory {
 public:
  AnonymousMemory() = default;
  // Page-aligned. Throws kIo, naming `what`, where the system has no room for it.
  AnonymousMemory(size_t bytes, const char* what);
  ~AnonymousMemory();
  AnonymousMemory(AnonymousMemory&& other) noexcept;
  AnonymousMemory& operator=(AnonymousMemory&& other) noexcept;

  void* data() const { return data_; }
  size_t size() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace nibble
