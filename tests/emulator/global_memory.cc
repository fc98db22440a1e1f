#include <algorithm>
#include <cstdlib>

#include "tests/emulator/machine.h"

namespace nibble::emulator {
namespace {

constexpr size_t kAlignment = 512;  // of cudaMalloc

}  // namespace

void* Memory::allocate(size_t bytes) {
  const size_t whole = (std::max<size_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  void* p = std::aligned_alloc(kAlignment, whole);
  if (p == nullptr) return nullptr;
  std::memset(p, kGarbage, whole);
  all_[reinterpret_cast<uint64_t>(p)] = bytes;
  return p;
}

bool Memory::free(void* p) {
  begin_ = end_ = 0;
  if (all_.erase(reinterpret_cast<uint64_t>(p)) == 0) return false;
  std::free(p);
  return true;
}

bool Memory::contains(uint64_t address, size_t bytes) const {
  if (address >= begin_ && address + bytes <= end_) return true;
  auto it = all_.upper_bound(address);
  if (it == all_.begin()) return false;
  --it;
  if (address + bytes > it->first + it->second) return false;
  begin_ = it->first;
  end_ = it->first + it->second;
  return true;
}

Memory& memory() {
  static auto& all = *new Memory;
  return all;
}

}  // namespace nibble::emulator
