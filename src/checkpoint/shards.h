// All tensors of a model folder, from one safetensors file or from the shards of an index.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "checkpoint/safetensors.h"

namespace nibble {

struct StoredTensor : TensorInfo {
  std::span<const uint8_t> data;
  const MappedFile* file = nullptr;
};

class TensorFiles {
 public:
  // Maps model.safetensors, or else the files that model.safetensors.index.json lists; index and
  // files must name the same tensors. Throws kIo, kCheckpoint.
  explicit TensorFiles(const std::filesystem::path& dir);

  const StoredTensor* find(std::string_view name) const;             // null: not there
  const std::vector<StoredTensor>& all() const { return tensors_; }  // in name order

  // Gives back the pages of bytes inside one of the files; other memory is left alone.
  void release(std::span<const uint8_t> part) const;

 private:
  void add_file(const std::filesystem::path& path);

  std::vector<std::unique_ptr<MappedFile>> files_;
  std::vector<StoredTensor> tensors_;
};

}  // namespace nibble
