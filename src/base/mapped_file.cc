#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/check.h"

namespace nibble {
namespace {

struct FileDescriptor {
  int fd;
  ~FileDescriptor() {
    if (fd >= 0) ::close(fd);
  }
};

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  FileDescriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  NIBBLE_CHECK(file.fd >= 0, ErrorCode::kIo, "{}: can't open: {}", path.string(),
               std::strerror(errno));
  struct stat info {};
  NIBBLE_CHECK(::fstat(file.fd, &info) == 0, ErrorCode::kIo, "{}: can't stat: {}", path.string(),
               std::strerror(errno));
  NIBBLE_CHECK(S_ISREG(info.st_mode), ErrorCode::kIo, "{}: not a regular file", path.string());
  size_ = static_cast<size_t>(info.st_size);
  if (size_ == 0) return;
  void* data = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.fd, 0);
  NIBBLE_CHECK(data != MAP_FAILED, ErrorCode::kIo, "{}: can't map {} bytes: {}", path.string(),
               size_, std::strerror(errno));
  data_ = static_cast<const uint8_t*>(data);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<uint8_t*>(data_), size_);
}

void MappedFile::release(std::span<const uint8_t> part) const {
  // Only whole pages inside `part`: its neighbours may still be wanted.
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<uintptr_t>(part.data()) + page - 1) / page * page;
  const auto end = reinterpret_cast<uintptr_t>(part.data() + part.size()) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace nibble
