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
  std::string op;      // "gemm", "quantize", "prompt", "decode", "read", "null"
  std::string impl;    // the implementation, or the model's folder
  std::string desc;    // shape and types
  double seconds = 0;  // median of one run
  double fastest = 0;
  double slowest = 0;
  double bytes = 0;          // that one run has to read or write at least
  double flops = 0;          // of one run; 0 where it says nothing
  double rate = 0;           // in `unit`
  std::string unit;          // "GB/s", "GMAC/s", "tokens/s"
  double share = 0;          // of the read bandwidth measured in this run; 0 where it says nothing
  double share_of_huge = 0;  // the same, of reading huge pages
  double predicted = 0;      // seconds, by the implementation's own estimate; 0: it has none
};
using BenchSink = std::function<void(const BenchRow&)>;

// A GEMM of m rows of activations with weights [n, k].
struct GemmShape {
  int64_t m = 1, n = 0, k = 0;
  WeightFormat weight = WeightFormat::kNvfp4;
};
struct BenchGemmOptions {
  std::string filter;  // only implementations whose name contains it
  // With the device's default activations. Empty: those of tests/cases/bench_gemm.txt, on CUDA of
  // bench_gemm_cuda.txt.
  std::vector<GemmShape> shapes;
};

// Shapes on every implementation that takes them (the reference aside, unless it is named), each
// with the configuration that it thinks best, all of one m in turns; a CUDA device's as graphs. A
// "read" row before them, of memory read by all threads (CUDA: copied), is what shares are of; a
// "null" row is the first implementation once more, whose difference is the noise. On a chip with
// native FP4 each 4-bit row also with activations quantized by the GEMM and given quantized. On
// CUDA, "host" rows: what making a plan of the first weights and calling it cost the host. Throws
// kInvalidArgument for a shape that is no GEMM's.
void bench_gemm(const Device& device, const BenchGemmOptions& options, const BenchSink& sink);

// The same with bench_quantize.txt and bench_quantize_cuda.txt.
void bench_quantize(const Device& device, std::string_view filter, const BenchSink& sink);

struct BenchCpuOptions {
  int64_t prompt = 512;                      // rows of the GEMMs that are not decoding; 9 at least
  size_t rotated_bytes = size_t{256} << 20;  // of weights, sources, memory to read: past the caches
};

// What the engine runs on a CPU, all of it in turns: "read" rows of plain and of huge pages;
// "decode" (one row) and "prompt" for a layer of SmolLM2-135M in nvfp4, mxfp4 and fp8, each launch
// the next of many layers; a "null" row, the first decode row once more, whose difference from it
// is what the machine's noise makes; "quantize" rows. Shares are of the two read rows.
void bench_cpu(const Device& device, const BenchCpuOptions& options, const BenchSink& sink);

struct BenchModelOptions {
  EngineOptions engine;
  int64_t prompt = 512;  // tokens; 0: no prompt row
  int64_t decode = 128;
  int repeats = 5;
  bool breakdown = false;  // "read" and "part" rows as well
};

// For a model folder: "load"; "prompt"; "decode", which begins behind 16 tokens. With a breakdown
// also "read", plain pages as the machine gives them now, of which decoding's bytes are a share,
// and "part": what each op takes, in percent, of decoding and drawing (temperature 0.8, top_p
// 0.95), from one pass more.
void bench_model(const std::filesystem::path& dir, const Device& device,
                 const BenchModelOptions& options, const BenchSink& sink);

// What the cost models expect of a GEMM on a chip that need not be here. Nothing of it is measured.
struct PredictedRow {
  std::string chip;  // "RTX PRO 6000"
  WeightFormat weight = WeightFormat::kNvfp4;
  int64_t m = 0, n = 0, k = 0;
  // An implementation of this build, by its own estimate, or ("fit") a published backend, by the
  // cost model fitted to published timings.
  std::string source;  // "estimate", "fit"
  std::string impl;    // "sm120_fp4_gemm", "cutedsl"
  std::string desc;    // as in a BenchRow; "fit": "as SM100", whose harness it stands for
  int64_t tiles = 0;   // blocks of threads
  int64_t mma = 0;     // tensor core instructions in the largest of them; 0: not said
  int64_t bytes = 0;   // that it reads and writes outside the multiprocessor
  double us = 0;
  double tflops = 0;
  // The fastest that was published for this size on this chip; "" and 0 where nothing was.
  std::string published;  // "cutedsl (SM100)"
  double published_tflops = 0;
};
using PredictionSink = std::function<void(const PredictedRow&)>;

// NVFP4 and MXFP4 GEMMs of given FP4 activations into bf16 on B200, B300, RTX PRO 6000 and GB10, of
// the sizes in bench_gemm_cuda.txt and in the tables of bench/data: one row for what the dispatcher
// would choose there among the implementations of this build (none without CUDA kernels), and on
// B200 and B300 one for the published backend that the fitted model would choose (NVFP4 only).
void predict(const PredictionSink& sink);

// How well the cost model of GEMM backends chooses on timings that others published: fitted to some
// tables, judged on another. CSV columns: device, n, k, m, backend, tflops.
struct ReplayOptions {
  std::vector<std::filesystem::path> fit;
  std::filesystem::path on;
  // Leaves what is judged out of the fit, a shape (n, k) of a device at a time.
  bool leave_out_shapes = false;
  std::vector<std::string> backends;  // judge only these; empty: all of `on`
};

// One (device, n, k, m) of `on`.
struct ReplayCell {
  std::string device;
  std::string source;  // the fitted device whose constants stood for it
  int64_t n = 0, k = 0, m = 0;
  struct Candidate {
    std::string backend;
    double measured_us = 0;
    double estimated_us = 0;
  };
  std::vector<Candidate> candidates;  // by name
  size_t best = 0;                    // of the measured
  size_t picked = 0;                  // of the estimated
  // 1 - best / picked time: the share of the speed that the choice gave away.
  double regret(size_t candidate) const;
};

// Shares, not percent: 0.013 is 1.3 %.
struct ReplayRegret {
  double geomean = 0;   // 1 - geometric mean of (1 - regret)
  double worst = 0;     // largest regret of a cell
  int over_5pct = 0;    // cells that lose more than 0.05
  int picked_best = 0;  // cells that lose nothing
};

// Of choosing candidate `choose(cell)` everywhere. `cells` is not empty.
ReplayRegret replay_regret(const std::vector<ReplayCell>& cells,
                           const std::function<size_t(const ReplayCell&)>& choose);

struct ReplayReport {
  ReplayRegret regret;
  struct Always {
    std::string backend;
    ReplayRegret regret;
  };
  std::vector<Always> always;  // one backend everywhere, of those that every cell has
  std::vector<ReplayCell> cells;
};

// torch-bf16 is no FP4 backend and no candidate. Throws kIo for a file that can't be read and
// kInvalidArgument for a malformed table (file, line, what was expected, what was found), a backend
// of `on` that the fit has not seen, or tables that have none in common.
ReplayReport replay(const ReplayOptions& options);

}  // namespace nibble
