#include "nibble/bench.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "nibble/bench_replay.h"
#include "nibble/commands.h"
#include "nibble/error.h"
#include "nibble/options.h"

namespace nibble::app {
namespace {

struct BenchOptions {
  std::string what;
  std::vector<std::string> models;
  std::string filter;
  int threads = 0;
  bool json = false;
  BenchModelOptions model;
  ReplayOptions replay;
};

int run(const BenchOptions& options) {
  if (options.what == "replay") return run_replay(options.replay, options.json);
  const Device device = Device::cpu(options.threads);
  nlohmann::ordered_json json = {{"device", device.info().name},
                                 {"threads", device.info().threads},
                                 {"version", NIBBLE_VERSION},
                                 {"rows", nlohmann::ordered_json::array()}};
  const BenchSink sink = [&](const BenchRow& r) {
    if (options.json) {
      json["rows"].push_back({{"op", r.op},
                              {"impl", r.impl},
                              {"desc", r.desc},
                              {"seconds", r.seconds},
                              {"fastest", r.fastest},
                              {"slowest", r.slowest},
                              {"bytes", r.bytes},
                              {"rate", r.rate},
                              {"unit", r.unit},
                              {"share_of_read", r.share}});
      return;
    }
    fmt::print("{:<9} {:<28} {:<54} {:>11.2f} us {:>9.1f} {}{}\n", r.op, r.impl, r.desc,
               r.seconds * 1e6, r.rate, r.unit,
               r.share > 0 ? fmt::format("  {:.0f} % of read", 100 * r.share) : "");
    std::fflush(stdout);
  };
  const bool all = options.what == "cpu";
  if (all || options.what == "gemm") bench_gemm(device, options.filter, sink);
  if (all || options.what == "quantize") bench_quantize(device, options.filter, sink);
  for (const std::string& model : options.models) {
    bench_model(model, device, options.model, sink);
  }
  if (options.json) print_json(json);
  return 0;
}

}  // namespace

void add_bench(CLI::App& app, Command& command) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App& c = *app.add_subcommand("bench", "Time kernels and models on this machine");
  c.add_option("what", options->what, "gemm, quantize, model, cpu for all of them, or replay")
      ->required()
      ->check(CLI::IsMember({"gemm", "quantize", "model", "cpu", "replay"}));
  c.add_option("models", options->models, "Model folders (model, cpu)");
  c.add_option("--filter", options->filter, "Only implementations whose name contains this");
  c.add_option("-p,--prompt", options->model.prompt, "Prompt tokens")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  c.add_option("-n,--decode", options->model.decode, "Tokens to decode")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  c.add_option("--repeats", options->model.repeats, "Repeats of which the median counts")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  add_activation(c, "--activation", options->model.engine.activation, kActivationHelp);
  c.add_option("--threads", options->threads, "CPU threads (0: every core)")
      ->check(CLI::Range(0, 1024));
  c.add_flag("--json", options->json, "Print one JSON object on stdout");
  add_replay(c, options->replay);
  c.callback([options, &command] {
    if (options->what == "model" && options->models.empty()) {
      throw CLI::ValidationError("models", "expected a model folder");
    }
    if (options->what == "replay" && (options->replay.fit.empty() || options->replay.on.empty())) {
      throw CLI::ValidationError("replay", "expected --fit TABLE... and --on TABLE");
    }
    command = [options] { return run(*options); };
  });
}

}  // namespace nibble::app
