#include "nibble/bench_replay.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "nibble/options.h"

namespace nibble::app {
namespace {

nlohmann::ordered_json to_json(const ReplayRegret& regret) {
  return {{"geomean", regret.geomean},
          {"worst", regret.worst},
          {"over_5pct", regret.over_5pct},
          {"picked_best", regret.picked_best}};
}

nlohmann::ordered_json to_json(const ReplayOptions& options, const ReplayReport& report) {
  nlohmann::ordered_json json = to_json(report.regret);
  json["cells"] = report.cells.size();
  json["fit"] = nlohmann::ordered_json::array();
  for (const auto& path : options.fit) json["fit"].push_back(path.string());
  json["on"] = options.on.string();
  json["leave_out_shapes"] = options.leave_out_shapes;
  json["always"] = nlohmann::ordered_json::object();
  for (const auto& [backend, regret] : report.always) json["always"][backend] = to_json(regret);
  json["rows"] = nlohmann::ordered_json::array();
  for (const ReplayCell& cell : report.cells) {
    nlohmann::ordered_json row = {{"device", cell.device},
                                  {"fitted_device", cell.source},
                                  {"n", cell.n},
                                  {"k", cell.k},
                                  {"m", cell.m},
                                  {"best", cell.candidates[cell.best].backend},
                                  {"picked", cell.candidates[cell.picked].backend},
                                  {"regret", cell.regret(cell.picked)}};
    for (const ReplayCell::Candidate& c : cell.candidates) {
      row["measured_us"][c.backend] = c.measured_us;
      row["estimated_us"][c.backend] = c.estimated_us;
    }
    json["rows"].push_back(std::move(row));
  }
  return json;
}

void print(std::string_view what, const ReplayRegret& regret, size_t cells) {
  fmt::print(
      "{:<22} loses {:5.2f} % (geometric mean), {:5.1f} % at worst; over 5 %: {:3}, "
      "best picked: {:3} of {}\n",
      what, 100 * regret.geomean, 100 * regret.worst, regret.over_5pct, regret.picked_best, cells);
}

}  // namespace

void add_replay(CLI::App& bench, ReplayOptions& options) {
  const char* group = "Replay";
  bench.add_option("--fit", options.fit, "Tables (CSV) that the cost model is fitted to")
      ->group(group);
  bench.add_option("--on", options.on, "Table (CSV) that its choices are judged on")->group(group);
  bench
      .add_flag("--leave-out-shapes", options.leave_out_shapes,
                "Fit without the shape of a device that is judged")
      ->group(group);
  bench.add_option("--backends", options.backends, "Choose among these only")
      ->delimiter(',')
      ->group(group);
}

int run_replay(const ReplayOptions& options, bool json) {
  const ReplayReport report = replay(options);
  if (json) {
    print_json(to_json(options, report));
    return 0;
  }
  for (const ReplayCell& cell : report.cells) {
    const double regret = cell.regret(cell.picked);
    if (regret == 0) continue;
    fmt::print("{} n={} k={} m={}: picked {}, best {}: loses {:.1f} %\n", cell.device, cell.n,
               cell.k, cell.m, cell.candidates[cell.picked].backend,
               cell.candidates[cell.best].backend, 100 * regret);
  }
  print("cost model", report.regret, report.cells.size());
  for (const auto& [backend, regret] : report.always) {
    print("always " + backend, regret, report.cells.size());
  }
  return 0;
}

}  // namespace nibble::app
