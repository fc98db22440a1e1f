// Times ops and models on the machine at hand. Medians of repeats; weights rotate through more
// memory than the caches hold; the floor, a plain read of memory by the same threads, is taken in
// the same run.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/device.h"
#include "nibble/engine.h"

namespace nibble {

struct BenchRow {
  std::string op;      // "gemm", "quantize", "prompt", "decode", "read"
  std::string impl;    // the implementation, or the model's folder
  std::string desc;    // shape and types
  double seconds = 0;  // median of one run
  double fastest = 0;
  double slowest = 0;
  double bytes = 0;  // that one run has to read or write at least
  double rate = 0;   // in `unit`
  std::string unit;  // "GB/s", "GMAC/s", "tokens/s"
  double share = 0;  // of the read bandwidth measured in this run; 0 where it says nothing
};
using BenchSink = std::function<void(const BenchRow&)>;

// A "read" row: GB/s of reading memory with every thread of the device.
double bench_read(const Device& device, const BenchSink& sink);

// The shapes of tests/cases/bench_gemm.txt, on every implementation that takes them and whose name
// contains `filter` (the reference aside, unless it is named).
void bench_gemm(const Device& device, std::string_view filter, const BenchSink& sink);

// The same with bench_quantize.txt.
void bench_quantize(const Device& device, std::string_view filter, const BenchSink& sink);

struct BenchModelOptions {
  EngineOptions engine;
  int64_t prompt = 512;  // tokens; 0: no prompt row
  int64_t decode = 128;
  int repeats = 5;
};

// A "load", a "prompt" and a "decode" row for a model folder. Decoding begins behind 16 tokens.
void bench_model(const std::filesystem::path& dir, const Device& device,
                 const BenchModelOptions& options, const BenchSink& sink);

}  // namespace nibble
