#include "base/host_arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/check.h"

namespace nibble {
namespace {

constexpr size_t kCacheLine = 64;
constexpr size_t kHugePage = size_t{1} << 21;
// Address space only: large enough that what is left over at a chunk's end is rare.
constexpr size_t kChunk = size_t{256} << 20;

size_t round_up(size_t value, size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

std::shared_ptr<uint8_t> reserve(size_t bytes) {
  // One huge page more than wanted, to start at the border of one.
  const size_t mapped = bytes + kHugePage;
  void* const base = ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  NIBBLE_CHECK(base != MAP_FAILED, ErrorCode::kDevice, "can't reserve {} bytes for weights: {}",
               mapped, std::strerror(errno));
  const auto address = reinterpret_cast<uintptr_t>(base);
  const size_t skipped = round_up(address, kHugePage) - address;
  uint8_t* const start = static_cast<uint8_t*>(base) + skipped;
  ::madvise(start, bytes, MADV_HUGEPAGE);  // a wish: without huge pages all works as well
  return {start, [base, mapped](uint8_t*) { ::munmap(base, mapped); }};
}

}  // namespace

std::shared_ptr<uint8_t> HostArena::allocate(size_t bytes) {
  NIBBLE_CHECK(bytes <= SIZE_MAX / 2, ErrorCode::kDevice, "can't allocate {} bytes", bytes);
  const size_t rounded = round_up(std::max<size_t>(bytes, 1), kCacheLine);
  const std::lock_guard lock(mutex_);
  if (rounded > size_ - used_) {
    size_ = round_up(std::max(rounded, kChunk), kHugePage);
    used_ = 0;
    chunk_ = reserve(size_);
  }
  uint8_t* const piece = chunk_.get() + used_;
  used_ += rounded;
  return {chunk_, piece};
}

}  // namespace nibble
