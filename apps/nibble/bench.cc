#include "nibble/bench.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "nibble/bench_replay.h"
#include "nibble/bench_report.h"
#include "nibble/commands.h"
#include "nibble/error.h"
#include "nibble/gemm.h"
#include "nibble/options.h"

namespace nibble::app {
namespace {

struct BenchOptions {
  std::string what;
  std::vector<std::string> models;
  BenchGemmOptions gemm;
  std::vector<std::string> shapes;
  std::vector<int64_t> rows = {1, 16, 64, 256};
  std::string device = "cpu";
  int threads = 0;
  bool predict = false;
  bool json = false;
  std::string json_file;  // empty: stdout
  std::string against, plot;
  BenchModelOptions model;
  ReplayOptions replay;
};

// What a user waits for and what it takes: "start" and "memory" rows of processes that read the
// demo's prompt and say one token.
void bench_start(const std::string& model, int threads, int repeats, const BenchSink& sink) {
  const std::string count = std::to_string(threads);
  const char* const words[] = {"nibble",
                               "run",
                               model.c_str(),
                               "-p",
                               "What is the capital of France, and why is it famous?",
                               "-n",
                               "1",
                               "--temp",
                               "0",
                               "--threads",
                               count.c_str(),
                               "--json",
                               nullptr};
  std::vector<double> seconds, mib;
  for (int i = 0; i < repeats; ++i) {
    const double begin = seconds_now();
    const pid_t child = ::fork();
    if (child == 0) {
      const int null = ::open("/dev/null", O_WRONLY);
      ::dup2(null, 1);
      ::execv("/proc/self/exe", const_cast<char* const*>(words));
      ::_exit(127);
    }
    int status = -1;
    rusage usage{};
    if (child < 0 || ::wait4(child, &status, 0, &usage) != child || status != 0) {
      throw Error(ErrorCode::kInternal, fmt::format("{}: nibble run failed", model));
    }
    seconds.push_back(seconds_now() - begin);
    mib.push_back(static_cast<double>(usage.ru_maxrss) / 1024);
  }
  std::sort(seconds.begin(), seconds.end());
  std::sort(mib.begin(), mib.end());
  BenchRow row;
  row.op = "start";
  row.impl = model;
  row.desc = "process to its first token";
  row.unit = "s";
  row.fastest = seconds.front();
  row.slowest = seconds.back();
  row.seconds = row.rate = seconds[seconds.size() / 2];
  sink(row);
  row.op = "memory";
  row.desc = "peak of that process";
  row.unit = "MiB";
  row.rate = mib[mib.size() / 2];
  sink(row);
}

// What a CPU runs, with one thread and with all. Processes first: to the system, the memory of
// whoever starts one is part of its peak.
void bench_everywhere(const BenchOptions& options, const std::function<BenchSink(int)>& sink_for) {
  std::vector<int> counts = {1};
  if (const int all = Device::cpu(options.threads).info().threads; all > 1) counts.push_back(all);
  const auto stage = [](const std::string& what) {
    if (is_terminal(2)) fmt::print(stderr, "\r\033[K{}", what);
  };
  const auto clear_and = [&](const BenchSink& sink) -> BenchSink {
    return [&stage, sink](const BenchRow& row) {
      stage("");
      sink(row);
    };
  };
  for (const int threads : counts) {
    for (const std::string& model : options.models) {
      bench_start(model, threads, options.model.repeats, sink_for(threads));
    }
  }
  for (const int threads : counts) {
    const Device device = Device::cpu(threads);
    const BenchSink sink = clear_and(sink_for(threads));
    stage(fmt::format("kernels, {} threads ...", threads));
    bench_cpu(device, {.prompt = std::max<int64_t>(options.model.prompt, kInt8MaxRows + 1)}, sink);
    for (const std::string& model : options.models) {
      stage(fmt::format("{}, {} threads ...", model, threads));
      BenchModelOptions shorter = options.model;
      shorter.prompt = options.model.prompt / 4;
      shorter.decode = 0;
      bench_model(model, device, options.model, sink);
      bench_model(model, device, shorter, [&](const BenchRow& row) {
        if (row.op == "prompt") sink(row);
      });
    }
  }
}

BenchGemmOptions with_shapes(const BenchOptions& options) {
  BenchGemmOptions gemm = options.gemm;
  for (const std::string& text : options.shapes) {
    const auto [n, k] = parse_shape(text);
    for (const int64_t m : options.rows) gemm.shapes.push_back({.m = m, .n = n, .k = k});
  }
  return gemm;
}

int run(const BenchOptions& options) {
  if (options.what == "replay") return run_replay(options.replay, options.json);
  const Device device = open_device(options.device, options.threads);
  const bool table = !options.json || !options.json_file.empty();
  BenchReport report(device.info(), options.against, table);
  const auto sink_for = [&](int threads) -> BenchSink {
    return [&report, threads](const BenchRow& row) { report.add(row, threads); };
  };
  const BenchSink sink = sink_for(device.info().threads);
  if (options.what == "cpu") bench_everywhere(options, sink_for);
  const bool all = options.what == "all";
  if (all || options.what == "gemm") bench_gemm(device, with_shapes(options), sink);
  if (all || options.what == "quantize") bench_quantize(device, options.gemm.filter, sink);
  if (options.what == "model") {
    for (const std::string& model : options.models) {
      bench_model(model, device, options.model, sink);
    }
  }
  if (all || options.predict) {
    bool own = false;
    predict([&](const PredictedRow& row) {
      own |= row.source == "estimate";
      report.add(row);
    });
    if (!own)
      report.note("this build has no kernels for these chips: only fits to published timings");
  }
  report.finish(options.json, options.json_file, options.plot);
  return 0;
}

}  // namespace

void add_bench(CLI::App& app, Command& command) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App& c = *app.add_subcommand("bench", "Time kernels and models on this machine");
  c.add_option("what", options->what,
               "gemm or quantize: every implementation; all: both, and --predict; model; replay; "
               "cpu: what runs on this processor, with one thread and with all, in turns, and "
               "models from the start of a process on")
      ->check(CLI::IsMember({"gemm", "quantize", "all", "model", "cpu", "replay"}));
  c.add_flag("--predict", options->predict,
             "What the cost models expect of Blackwell chips, beside what was published; alone or "
             "with another word");
  c.add_option("models", options->models, "Model folders (model, cpu)");
  c.add_option("--filter", options->gemm.filter, "Only implementations whose name contains this");
  CLI::Option* shape =
      c.add_option("--shape", options->shapes,
                   "gemm: these NVFP4 weights, NxK,..., and not those of the built-in list")
          ->delimiter(',');
  c.add_option("--m", options->rows, "Rows of activations of each --shape")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->needs(shape)
      ->capture_default_str();
  c.add_option("-p,--prompt", options->model.prompt, "Prompt tokens (cpu: and a quarter of them)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  c.add_option("-n,--decode", options->model.decode, "Tokens to decode")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  c.add_option("--repeats", options->model.repeats, "Repeats of which the median counts")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  c.add_flag("--breakdown", options->model.breakdown,
             "model: also what memory gives now, and what each op takes of decoding");
  add_activation(c, "--activation", options->model.engine.activation, kActivationHelp);
  c.add_option("--device", options->device, "cpu, cuda or cuda:N (gemm, quantize, all)")
      ->capture_default_str();
  c.add_option("--threads", options->threads, "CPU threads (0: every core)")
      ->check(CLI::Range(0, 1024));
  c.add_option("--against", options->against,
               "A file that --json wrote: show each row's time as a ratio to it");
  c.add_option("--plot", options->plot, "Draw the GEMM rows under the roofline, as an SVG file");
  CLI::Option* json =
      c.add_option("--json", options->json_file,
                   "Print one JSON object on stdout; with a file, write it there beside the table")
          ->expected(0, 1);
  add_replay(c, options->replay);
  c.callback([options, json, &command] {
    options->json = json->count() > 0;
    if (options->what.empty() && !options->predict) {
      throw CLI::ValidationError("what",
                                 "expected gemm, quantize, all, model, cpu, replay or --predict");
    }
    if (options->what == "model" && options->models.empty()) {
      throw CLI::ValidationError("models", "expected a model folder");
    }
    if (options->what == "replay" && (options->replay.fit.empty() || options->replay.on.empty())) {
      throw CLI::ValidationError("replay", "expected --fit TABLE... and --on TABLE");
    }
    if (!options->shapes.empty() && options->what != "gemm" && options->what != "all") {
      throw CLI::ValidationError("--shape", "only gemm and all take shapes");
    }
    const std::set<std::string> on_devices = {"gemm", "quantize", "all"};
    if (options->device != "cpu" && !on_devices.contains(options->what)) {
      throw CLI::ValidationError("--device", "only gemm, quantize and all run on another device");
    }
    command = [options] { return run(*options); };
  });
}

}  // namespace nibble::app
