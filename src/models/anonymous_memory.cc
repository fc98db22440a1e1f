#include "models/anonymous_memory.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace nibble {

AnonymousMemory::AnonymousMemory(size_t bytes, const char* what) : bytes_(bytes) {
  if (bytes == 0) return;
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  NIBBLE_CHECK(data != MAP_FAILED, ErrorCode::kIo, "can't reserve {} bytes for {}: {}", bytes, what,
               std::strerror(errno));
  data_ = data;
  // With huge pages one token would make 2 MiB resident per key/value head and layer.
  madvise(data_, bytes_, MADV_NOHUGEPAGE);
}

AnonymousMemory::~AnonymousMemory() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

AnonymousMemory::AnonymousMemory(AnonymousMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

AnonymousMemory& AnonymousMemory::operator=(AnonymousMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace nibble
