// Choices that `nibble tune` measured on this very machine: a JSON file under NIBBLE_CACHE_DIR that
// a device reads when it is opened.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/device.h"
#include "ops/impl.h"

namespace nibble {

// What a measurement is true for. Another driver or Nibble may have other kernels and times.
struct TuningKey {
  std::string device;   // DeviceInfo::name; a CPU's with its number of threads
  std::string driver;   // DeviceInfo::driver
  std::string version;  // Nibble's

  bool operator==(const TuningKey&) const = default;
};
TuningKey tuning_key(const DeviceInfo& device);

struct TunedChoice {
  std::string op, desc;  // kOpName and to_string of the descriptor
  std::string impl;
  KernelConfig config;
  double us = 0;        // of impl with config
  double model_us = 0;  // of what the tables and the cost model choose
  double noise = 0;     // by how much two timings of one kernel differed, as a share

  // Whether the difference is more than noise.
  bool pays() const { return us < model_us * (1 - noise); }
};

class TuningTable {
 public:
  explicit TuningTable(TuningKey key) : key_(std::move(key)) {}

  // Empty where the file is missing or has another key. Throws kIo for a file that can't be read,
  // kInvalidArgument for one that is no such table.
  static TuningTable read(const std::filesystem::path& path, const TuningKey& key);
  // Replaces the file in one step. Throws kIo.
  void write(const std::filesystem::path& path) const;

  void put(TunedChoice choice);  // replaces what is there for its op and descriptor
  const TunedChoice* find(std::string_view op, std::string_view desc) const;
  const std::vector<TunedChoice>& choices() const { return choices_; }
  bool empty() const { return choices_.empty(); }

 private:
  TuningKey key_;
  std::vector<TunedChoice> choices_;
};

// <cache>/tuning-nvidia-h200.json; the cache is NIBBLE_CACHE_DIR, else XDG_CACHE_HOME/nibble, else
// HOME/.cache/nibble. Nothing where none of the three is set.
std::optional<std::filesystem::path> tuning_path(const DeviceInfo& device);

}  // namespace nibble
