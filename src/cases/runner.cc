#include "cases/runner.h"

namespace nibble::cases {

void* Inputs::place(const void* host, size_t bytes) {
  if (stream_.kind == DeviceKind::kCpu) return const_cast<void*>(host);
  copies_.emplace_back(stream_.index, bytes);
  cuda::copy(copies_.back().get(), host, bytes, stream_.cuda);
  return copies_.back().get();
}

GuardedBuffer::GuardedBuffer(size_t bytes, const Device& device)
    : memory_(bytes + 2 * kGuard, kSentinel), stream_(device.stream()) {
  if (stream_.kind == DeviceKind::kCuda) device_ = {stream_.index, memory_.size()};
  poison();
}

void GuardedBuffer::upload() {
  if (device_.data()) cuda::copy(device_.get(), memory_.data(), memory_.size(), stream_.cuda);
}

void GuardedBuffer::download() {
  if (!device_.data()) return;
  cuda::copy(memory_.data(), device_.get(), memory_.size(), stream_.cuda);
  cuda::synchronize(stream_.cuda);
}

bool GuardedBuffer::guards_hold() const {
  const auto is_guard = [](uint8_t byte) { return byte == kSentinel; };
  return std::all_of(memory_.begin(), memory_.begin() + kGuard, is_guard) &&
         std::all_of(memory_.end() - kGuard, memory_.end(), is_guard);
}

}  // namespace nibble::cases
