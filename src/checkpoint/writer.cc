#include "checkpoint/writer.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <random>
#include <utility>

#include "base/check.h"
#include "checkpoint/strict_json.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using OrderedJson = nlohmann::ordered_json;

// The kernel itself keeps gigabytes before it writes any, and finish() would wait for all of it.
constexpr int64_t kFlushBytes = 8 << 20;

[[noreturn]] void fail_io(const fs::path& path, const char* doing) {
  const int error = errno;
  fail(ErrorCode::kIo, "{}: can't {}: {}", path.string(), doing, std::strerror(error));
}

int64_t bytes_of(const OutputTensor& tensor) {
  int64_t bytes = static_cast<int64_t>(size_of(tensor.dtype));
  for (int64_t dim : tensor.shape) {
    NIBBLE_CHECK(dim >= 0 && !__builtin_mul_overflow(bytes, dim, &bytes),
                 ErrorCode::kInvalidArgument, "tensor {}: impossible shape [{}]", tensor.name,
                 fmt::join(tensor.shape, ", "));
  }
  return bytes;
}

// Splits in the given order; within a shard, wide types come first, so that all are aligned.
std::vector<std::vector<OutputTensor>> split(std::vector<OutputTensor> tensors, int64_t max_bytes) {
  std::vector<std::vector<OutputTensor>> shards(1);
  int64_t bytes = 0;
  for (OutputTensor& tensor : tensors) {
    const int64_t size = bytes_of(tensor);
    if (!shards.back().empty() && size > max_bytes - bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    bytes += size;
    shards.back().push_back(std::move(tensor));
  }
  for (auto& shard : shards) {
    std::stable_sort(shard.begin(), shard.end(), [](const OutputTensor& a, const OutputTensor& b) {
      return size_of(a.dtype) > size_of(b.dtype);
    });
  }
  return shards;
}

std::string header_of(const std::vector<OutputTensor>& shard) {
  OrderedJson header = {{"__metadata__", {{"format", "pt"}}}};
  int64_t begin = 0;
  for (const OutputTensor& tensor : shard) {
    const int64_t end = begin + bytes_of(tensor);
    header[tensor.name] = {{"dtype", to_string(tensor.dtype)},
                           {"shape", tensor.shape},
                           {"data_offsets", {begin, end}}};
    begin = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::string length(8, '\0');
  for (int i = 0; i < 8; ++i) length[i] = static_cast<char>(text.size() >> 8 * i);
  return length + text;
}

void write_all(int fd, const fs::path& path, std::span<const uint8_t> bytes, int64_t at) {
  while (!bytes.empty()) {
    const ssize_t done = ::pwrite(fd, bytes.data(), bytes.size(), at);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail_io(path, "write");
    bytes = bytes.subspan(static_cast<size_t>(done));
    at += done;
  }
}

std::span<const uint8_t> as_bytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// The lock on the folder itself tells a live writer from a dead one, whatever became of its pid.
int lock_folder(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0 && ::flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
  if (fd >= 0) ::close(fd);
  return -1;
}

// "<dst>.tmp-<pid>-<8 hex digits>", and no folder of the user's.
bool is_temporary_name(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return false;
  name.remove_prefix(prefix.size());
  const size_t dash = name.find('-');
  return dash != name.npos && dash != 0 && name.size() == dash + 9 &&
         name.substr(0, dash).find_first_not_of("0123456789") == name.npos &&
         name.substr(dash + 1).find_first_not_of("0123456789abcdef") == name.npos;
}

void remove_left_overs(const fs::path& parent, const std::string& prefix) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(parent, error)) {
    if (!is_temporary_name(entry.path().filename().string(), prefix)) continue;
    const int lock = lock_folder(entry.path());
    if (lock < 0) continue;
    fs::remove_all(entry.path(), error);
    ::close(lock);
  }
}

void sync_folder(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) fail_io(path, "open");
  const int result = ::fsync(fd);
  ::close(fd);
  if (result != 0) fail_io(path, "flush");
}

}  // namespace

CheckpointWriter::CheckpointWriter(fs::path dst, std::vector<OutputTensor> tensors,
                                   int64_t max_shard_bytes)
    : dst_(std::move(dst)) {
  if (!dst_.has_filename()) dst_ = dst_.parent_path();  // "out/"
  NIBBLE_CHECK(!dst_.empty() && dst_.filename() != "." && dst_.filename() != "..",
               ErrorCode::kInvalidArgument, "\"{}\": not the name of a folder to make",
               dst_.string());
  std::error_code error;
  NIBBLE_CHECK(!fs::exists(fs::symlink_status(dst_, error)), ErrorCode::kInvalidArgument,
               "{}: already exists", dst_.string());
  const fs::path parent = dst_.has_parent_path() ? dst_.parent_path() : ".";
  const std::string prefix = dst_.filename().string() + ".tmp-";
  remove_left_overs(parent, prefix);
  auto shards = split(std::move(tensors), max_shard_bytes);

  tmp_ = parent / fmt::format("{}{}-{:08x}", prefix, ::getpid(), std::random_device()());
  if (::mkdir(tmp_.c_str(), 0777) != 0) fail_io(tmp_, "create");
  try {
    lock_ = lock_folder(tmp_);
    if (lock_ < 0) fail_io(tmp_, "lock");
    for (size_t i = 0; i < shards.size(); ++i) {
      create_shard(shards[i], shards.size() == 1 ? "model.safetensors"
                                                 : fmt::format("model-{:05}-of-{:05}.safetensors",
                                                               i + 1, shards.size()));
    }
    if (shards.size() > 1) {
      OrderedJson index = {{"metadata", {{"total_size", total_bytes_}}},
                           {"weight_map", OrderedJson::object()}};
      for (const auto& [name, slot] : slots_) index["weight_map"][name] = files_[slot.file].name;
      add_file("model.safetensors.index.json", index.dump(2) + "\n");
    }
    std::vector<int> fds;
    for (size_t i = 0; i < shards.size(); ++i) fds.push_back(files_[i].fd);
    flusher_ = std::jthread(
        [this, fds = std::move(fds)](std::stop_token stop) { flush_ahead(stop, fds); });
  } catch (...) {
    remove_temporary();
    throw;
  }
}

CheckpointWriter::~CheckpointWriter() { remove_temporary(); }

void CheckpointWriter::create_shard(const std::vector<OutputTensor>& tensors,
                                    const std::string& name) {
  const fs::path path = tmp_ / name;
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0) fail_io(path, "create");
  files_.push_back({name, fd});
  const std::string header = header_of(tensors);
  auto end = static_cast<int64_t>(header.size());
  for (const OutputTensor& tensor : tensors) {
    const int64_t bytes = bytes_of(tensor);
    const bool added = slots_.try_emplace(tensor.name, files_.size() - 1, end, bytes).second;
    NIBBLE_CHECK(added && tensor.name != "__metadata__", ErrorCode::kInvalidArgument,
                 "tensor {} is planned twice", tensor.name);
    end += bytes;
    total_bytes_ += bytes;
  }
  // Reserves the space, so that a disk too small is known now and not after hours of work.
  int result;
  do {
    result = ::fallocate(fd, 0, 0, end);
  } while (result != 0 && errno == EINTR);
  if (result != 0 && errno == EOPNOTSUPP) result = ::ftruncate(fd, end);
  if (result != 0) fail_io(path, fmt::format("reserve {} bytes", end).c_str());
  write_all(fd, path, as_bytes(header), 0);
}

void CheckpointWriter::write(std::string_view name, std::span<const uint8_t> bytes,
                             int64_t offset) {
  const auto it = slots_.find(name);
  NIBBLE_CHECK(it != slots_.end(), ErrorCode::kInvalidArgument, "tensor {} was not planned", name);
  Slot& slot = it->second;
  const auto size = static_cast<int64_t>(bytes.size());
  NIBBLE_CHECK(offset >= 0 && size <= slot.bytes && offset <= slot.bytes - size,
               ErrorCode::kInvalidArgument, "tensor {}: bytes {} to {} of {}", name, offset,
               offset + size, slot.bytes);
  const File& file = files_[slot.file];
  write_all(file.fd, tmp_ / file.name, bytes, slot.begin + offset);
  slot.written += size;
  const int64_t before = written_.fetch_add(size);
  if (before / kFlushBytes == (before + size) / kFlushBytes) return;
  ++flushes_;
  flushes_.notify_one();
}

// Starts the disk while tensors are still being made. On a thread of its own, because the call
// waits where the disk's queue is full. Only a hint: finish() checks what matters.
void CheckpointWriter::flush_ahead(const std::stop_token& stop, const std::vector<int>& fds) const {
  for (int seen = 0; !stop.stop_requested(); seen = flushes_) {
    flushes_.wait(seen);
    for (const int fd : fds) {
      if (!stop.stop_requested()) ::sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    }
  }
}

void CheckpointWriter::stop_flushing() noexcept {
  if (!flusher_.joinable()) return;
  flusher_.request_stop();
  ++flushes_;
  flushes_.notify_one();
  flusher_.join();
}

void CheckpointWriter::add_file(const std::string& name, std::string_view contents) {
  const fs::path path = tmp_ / name;
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0) fail_io(path, "create");
  files_.push_back({name, fd});  // finish() flushes and closes it with the others
  write_all(fd, path, as_bytes(contents), 0);
}

void CheckpointWriter::copy_file(const fs::path& source) {
  add_file(source.filename().string(), read_text_file(source));
}

void CheckpointWriter::finish() {
  for (const auto& [name, slot] : slots_) {
    NIBBLE_CHECK(slot.written == slot.bytes, ErrorCode::kInternal,
                 "tensor {}: {} of {} bytes were written", name, slot.written.load(), slot.bytes);
  }
  stop_flushing();
  // All begin before the first is waited for: small files then share the large ones' commit.
  for (const File& file : files_) ::sync_file_range(file.fd, 0, 0, SYNC_FILE_RANGE_WRITE);
  for (File& file : files_) {
    if (::fsync(file.fd) != 0) fail_io(tmp_ / file.name, "flush");
    const int fd = std::exchange(file.fd, -1);
    if (::close(fd) != 0) fail_io(tmp_ / file.name, "close");
  }
  sync_folder(tmp_);
  int result = ::renameat2(AT_FDCWD, tmp_.c_str(), AT_FDCWD, dst_.c_str(), RENAME_NOREPLACE);
  // Some file systems lack the flag. A plain rename still replaces nothing but an empty folder.
  if (result != 0 && errno == EINVAL) result = ::rename(tmp_.c_str(), dst_.c_str());
  if (result != 0) fail_io(dst_, "rename the finished folder to this name");
  tmp_.clear();
  sync_folder(dst_.has_parent_path() ? dst_.parent_path() : ".");
}

void CheckpointWriter::remove_temporary() noexcept {
  stop_flushing();
  for (File& file : files_) {
    if (file.fd >= 0) ::close(std::exchange(file.fd, -1));
  }
  std::error_code error;
  if (!tmp_.empty()) fs::remove_all(tmp_, error);
  if (lock_ >= 0) ::close(std::exchange(lock_, -1));
}

}  // namespace nibble
