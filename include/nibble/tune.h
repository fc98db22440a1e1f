// Optional: times the candidates of every op that has some, on the device at hand, and keeps what
// beats the cost model. Devices opened afterwards use it (docs/dispatch.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/device.h"

namespace nibble {

struct TuneShape {
  WeightFormat format = WeightFormat::kNvfp4;
  int64_t n = 0, k = 0;
};

struct TuneOptions {
  std::vector<TuneShape> shapes;
  int64_t max_m = 8192;
  int top = 8;                        // candidates of an implementation, the best by estimate
  std::vector<std::string> skip_ops;  // by name; "gemm" is the only one with candidates today
  // The table to write. What it already holds for this device, driver and version is not timed
  // again unless `fresh`.
  std::filesystem::path path;
  bool fresh = false;
};

struct TuneStep {
  int64_t done = 0, total = 0;  // descriptors
  std::string_view desc;
  double us = 0, model_us = 0;  // the best candidate's and the cost model's choice
  bool used = false;            // faster beyond noise
  bool resumed = false;         // was in the table
};

struct TuneReport {
  int64_t timed = 0, resumed = 0, used = 0;
  double geomean_gain = 1.0;  // model_us over the used us, over all descriptors
};

// The default of TuneOptions::path. Throws kInvalidArgument where neither NIBBLE_CACHE_DIR nor a
// home is set.
std::filesystem::path default_tuning_path(const Device& device);

// Writes the table after every shape, so an exception from on_step, which may cancel, loses little.
// Throws kInvalidArgument for an unknown op, an empty shape or a bad table, kIo, kDevice.
TuneReport tune(const Device& device, const TuneOptions& options,
                const std::function<void(const TuneStep&)>& on_step);

}  // namespace nibble
