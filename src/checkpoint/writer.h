// Writes a model folder: safetensors files whose layout is known up front, filled by any threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "nibble/types.h"

namespace nibble {

struct OutputTensor {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;  // empty: a scalar
};

// Everything goes to DST.tmp-<pid>-<random> beside DST; finish() renames it. A process that dies
// leaves no DST, and the next writer of the same DST removes what a dead one left. Errors are kIo
// with the system's reason (a full disk among them).
class CheckpointWriter {
 public:
  static constexpr int64_t kMaxShardBytes = 5'000'000'000;

  // Creates and sizes all files. `dst` must not exist. Tensors are split into shards, in the given
  // order, where they exceed max_shard_bytes together; then an index is written as well.
  CheckpointWriter(std::filesystem::path dst, std::vector<OutputTensor> tensors,
                   int64_t max_shard_bytes = kMaxShardBytes);
  // Removes the temporary folder unless finish() succeeded.
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // Writes part of a tensor, `offset` bytes into it. Thread-safe.
  void write(std::string_view name, std::span<const uint8_t> bytes, int64_t offset = 0);
  // Adds a small file such as config.json. This and copy_file: by one thread at a time.
  void add_file(const std::string& name, std::string_view contents);
  // Copies a file from another folder.
  void copy_file(const std::filesystem::path& source);

  // Flushes everything to disk and renames the folder to dst. Throws kInternal, naming the tensor,
  // where one was not written completely.
  void finish();

  const std::filesystem::path& dst() const { return dst_; }
  int64_t total_bytes() const { return total_bytes_; }  // of tensor data

 private:
  struct File {
    std::string name;
    int fd;
  };
  struct Slot {
    Slot(size_t in_file, int64_t at, int64_t size) : file(in_file), begin(at), bytes(size) {}
    size_t file;
    int64_t begin;  // within the file
    int64_t bytes;
    std::atomic<int64_t> written{0};
  };
  void create_shard(const std::vector<OutputTensor>& tensors, const std::string& name);
  void remove_temporary() noexcept;
  void flush_ahead(const std::stop_token& stop, const std::vector<int>& fds) const;
  void stop_flushing() noexcept;

  std::filesystem::path dst_;
  std::filesystem::path tmp_;
  int lock_ = -1;            // on tmp_, held as long as the writer lives
  std::vector<File> files_;  // all open until finish()
  std::map<std::string, Slot, std::less<>> slots_;
  int64_t total_bytes_ = 0;
  std::atomic<int64_t> written_{0};  // bytes of tensor data
  std::atomic<int> flushes_{0};      // asked for
  std::jthread flusher_;
};

}  // namespace nibble
