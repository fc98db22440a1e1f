#include "nibble/tune.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "nibble/commands.h"
#include "nibble/error.h"
#include "nibble/inspect.h"
#include "nibble/options.h"
#include "nibble/progress.h"

namespace nibble::app {
namespace {

struct TuneCommand {
  std::vector<std::string> models, shapes;
  std::string device = "cpu";
  std::string format = "nvfp4";
  std::string output;
  int threads = 0;
  TuneOptions tune;
  bool json = false, quiet = false;
};

std::vector<TuneShape> shapes_of(const TuneCommand& options, const Device& device) {
  const WeightFormat format =
      options.format == "nvfp4" ? WeightFormat::kNvfp4 : WeightFormat::kMxfp4;
  std::vector<TuneShape> shapes;
  for (const std::string& text : options.shapes) {
    const auto [n, k] = parse_shape(text);
    shapes.push_back({format, n, k});
  }
  for (const std::string& model : options.models) {
    for (const ModelReport::Linear& l : inspect(model, device).linears) {
      shapes.push_back({l.format, l.n, l.k});
    }
  }
  return shapes;
}

int run(const TuneCommand& options) {
  catch_interrupts();
  const Device device = open_device(options.device, options.threads);
  TuneOptions tune_options = options.tune;
  tune_options.shapes = shapes_of(options, device);
  tune_options.path =
      options.output.empty() ? default_tuning_path(device) : std::filesystem::path(options.output);
  TuneReport report;
  {
    Progress progress("tune", "choices", 1, options.quiet || options.json);
    report = tune(device, tune_options, [&](const TuneStep& s) {
      if (interrupted()) {
        throw Error(ErrorCode::kCancelled,
                    "interrupted; finished shapes are kept, the next call goes on from there");
      }
      progress.update(s.done, s.total, std::string(s.desc));
    });
  }
  if (options.json) {
    print_json({{"device", device.info().name},
                {"driver", device.info().driver},
                {"table", tune_options.path.string()},
                {"timed", report.timed},
                {"resumed", report.resumed},
                {"used", report.used},
                {"geomean_gain", report.geomean_gain}});
  } else {
    fmt::print("{}: {} choices timed, {} known; {} beat the cost model, {:.3f}x over all\n",
               tune_options.path.string(), report.timed, report.resumed, report.used,
               report.geomean_gain);
  }
  return 0;
}

}  // namespace

void add_tune(CLI::App& app, Command& command) {
  auto options = std::make_shared<TuneCommand>();
  CLI::App& c = *app.add_subcommand(
      "tune", "Time kernels on this machine where the cost model may be beaten (optional)");
  c.add_option("models", options->models, "Model folders, whose layers' shapes are tuned");
  c.add_option("--shape", options->shapes, "A layer's NxK (repeatable)")->allow_extra_args(false);
  c.add_option("--format", options->format, "Weight format of --shape")
      ->check(CLI::IsMember(std::vector<std::string>{"nvfp4", "mxfp4"}))
      ->capture_default_str();
  c.add_option("--device", options->device, "cpu, cuda or cuda:N")->capture_default_str();
  c.add_option("--threads", options->threads, "CPU threads (0: every core)")
      ->check(CLI::Range(0, 1024));
  c.add_option("--max-m", options->tune.max_m, "Most rows of activations")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  c.add_option("--top", options->tune.top, "Candidates of an implementation to time")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  c.add_option("--skip-ops", options->tune.skip_ops, "Ops to leave to the cost model")
      ->delimiter(',');
  c.add_option("--output", options->output,
               "Table to write (unless given, the one under NIBBLE_CACHE_DIR that devices read)");
  c.add_flag("--fresh", options->tune.fresh, "Time again what the table holds");
  c.add_flag("-q,--quiet", options->quiet, "No progress bar");
  c.add_flag("--json", options->json, "Print the report as one JSON object on stdout");
  c.callback([options, &command] {
    if (options->models.empty() && options->shapes.empty()) {
      throw CLI::ValidationError("models", "expected a model folder or --shape NxK");
    }
    command = [options] { return run(*options); };
  });
}

}  // namespace nibble::app
