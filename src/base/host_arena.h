// Memory for what a model keeps as long as it is loaded, in huge pages: with ordinary ones a core
// that streams its weights spends a third of the time on address translation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>

namespace nibble {

class HostArena {
 public:
  // Zeroed memory that starts on a cache line. Pieces follow each other in the order they are asked
  // for, so that small ones share a huge page; a page is resident once it is touched. A piece's
  // memory is given back with the last one of its chunk. Throws kDevice. Thread-safe.
  std::shared_ptr<uint8_t> allocate(size_t bytes);

 private:
  std::mutex mutex_;
  std::shared_ptr<uint8_t> chunk_;
  size_t used_ = 0;
  size_t size_ = 0;
};

}  // namespace nibble
