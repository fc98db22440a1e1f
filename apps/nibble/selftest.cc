#include "nibble/selftest.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "nibble/commands.h"
#include "nibble/options.h"

namespace nibble::app {
namespace {

struct SelftestOptions {
  std::string filter;
  std::string device = "cpu";
  int threads = 0;
  bool json = false;
  std::string json_file;  // empty: stdout
};

struct Row {
  std::string op, impl;
  int passed = 0, failed = 0, refused = 0;
  std::string refusal;  // the last reason
};

int run(const SelftestOptions& options) {
  const Device device = open_device(options.device, options.threads);
  const bool table = !options.json || !options.json_file.empty();
  std::vector<Row> rows;
  nlohmann::ordered_json failures = nlohmann::ordered_json::array();
  selftest(device, options.filter, [&](const CaseResult& r) {
    auto row = std::ranges::find(rows, r.impl, &Row::impl);
    if (row == rows.end()) row = rows.insert(row, {.op = r.op, .impl = r.impl, .refusal = ""});
    if (r.status == CaseResult::Status::kPassed) ++row->passed;
    if (r.status == CaseResult::Status::kRefused) ++row->refused, row->refusal = r.detail;
    if (r.status != CaseResult::Status::kFailed) return;
    ++row->failed;
    failures.push_back({{"impl", r.impl}, {"case", r.case_id}, {"detail", r.detail}});
    if (table) fmt::print("FAILED {}/{}: {}\n", r.impl, r.case_id, r.detail);
  });
  if (rows.empty()) {
    fmt::print(stderr, "nibble: invalid argument: no implementation's name contains '{}'\n",
               options.filter);
    return 1;
  }
  if (options.json) {
    nlohmann::ordered_json json = {{"device", device.info().name},
                                   {"driver", device.info().driver},
                                   {"version", NIBBLE_VERSION},
                                   {"threads", device.info().threads},
                                   {"implementations", nlohmann::ordered_json::array()},
                                   {"failures", failures}};
    for (const Row& r : rows) {
      json["implementations"].push_back({{"op", r.op},
                                         {"impl", r.impl},
                                         {"passed", r.passed},
                                         {"failed", r.failed},
                                         {"refused", r.refused},
                                         {"refusal", r.refusal}});
    }
    if (options.json_file.empty()) {
      print_json(json);
    } else {
      write_file(options.json_file, json.dump(2) + "\n");
    }
  }
  if (table) {
    fmt::print("{}, {} threads\n{:<32} {:>6} {:>6} {:>7}\n", device.info().name,
               device.info().threads, "implementation", "passed", "failed", "refused");
    for (const Row& r : rows) {
      fmt::print("{:<32} {:>6} {:>6} {:>7}{}{}\n", r.impl, r.passed, r.failed, r.refused,
                 r.refusal.empty() ? "" : "  e.g. ", r.refusal);
    }
  }
  return failures.empty() ? 0 : 1;
}

}  // namespace

void add_selftest(CLI::App& app, Command& command) {
  auto options = std::make_shared<SelftestOptions>();
  CLI::App& c = *app.add_subcommand(
      "selftest", "Check every implementation on this machine against the reference");
  c.add_option("--filter", options->filter, "Only implementations whose name contains this");
  c.add_option("--device", options->device, "cpu, cuda or cuda:N")->capture_default_str();
  c.add_option("--threads", options->threads, "CPU threads (0: every core)")
      ->check(CLI::Range(0, 1024));
  CLI::Option* json =
      c.add_option("--json", options->json_file,
                   "Print one JSON object on stdout; with a file, write it there beside the table")
          ->expected(0, 1);
  c.callback([options, json, &command] {
    options->json = json->count() > 0;
    command = [options] { return run(*options); };
  });
}

}  // namespace nibble::app
