#include "nibble/inspect.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "nibble/commands.h"
#include "nibble/options.h"

namespace nibble::app {
namespace {

struct InspectOptions : ModelOptions {
  bool tensors = false;
};

nlohmann::ordered_json to_json(const KernelChoice& c) {
  return {{"op", c.op},         {"desc", c.desc},     {"impl", c.impl},
          {"config", c.config}, {"reason", c.reason}, {"refusals", c.refusals}};
}

nlohmann::ordered_json to_json(const ModelReport& report) {
  nlohmann::ordered_json json = {{"architecture", report.architecture},
                                 {"config", nlohmann::ordered_json::object()},
                                 {"quantization", report.quantization},
                                 {"parameters", report.parameters},
                                 {"bytes", report.bytes},
                                 {"open_seconds", report.open_seconds},
                                 {"linears", nlohmann::ordered_json::array()},
                                 {"tensors", nlohmann::ordered_json::array()}};
  for (const auto& [key, value] : report.config) json["config"][key] = value;
  for (const ModelReport::Linear& l : report.linears) {
    json["linears"].push_back({{"modules", l.modules},
                               {"count", l.count},
                               {"format", to_string(l.format)},
                               {"scheme", l.scheme},
                               {"n", l.n},
                               {"k", l.k},
                               {"bytes", l.bytes},
                               {"decode", to_json(l.decode)},
                               {"prompt", to_json(l.prompt)}});
  }
  for (const ModelReport::Tensor& t : report.tensors) {
    json["tensors"].push_back({{"name", t.name},
                               {"dtype", t.dtype},
                               {"shape", t.shape},
                               {"bytes", t.bytes},
                               {"file", t.file}});
  }
  return json;
}

void print(const ModelReport& report, const InspectOptions& options) {
  fmt::print("{}  {}  {:.1f} M weights  {:.1f} MB  quantization: {}\n\n", options.model,
             report.architecture, static_cast<double>(report.parameters) / 1e6,
             static_cast<double>(report.bytes) / 1e6, report.quantization);
  for (const auto& [key, value] : report.config) fmt::print("  {:<18} {}\n", key, value);

  fmt::print("\n  {:<44} {:>5} {:<6} {:>14} {:>9}  {:<24} {:<24}\n", "linear layers", "count",
             "format", "n x k", "MB", "one token", "prompt");
  for (const ModelReport::Linear& l : report.linears) {
    fmt::print("  {:<44} {:>5} {:<6} {:>14} {:>9.2f}  {:<24} {:<24}\n", l.modules, l.count,
               to_string(l.format), fmt::format("{} x {}", l.n, l.k),
               static_cast<double>(l.bytes) / 1e6, l.decode.impl, l.prompt.impl);
  }
  // Layers that run on the same thing for the same reason share a paragraph.
  std::map<std::pair<std::string, std::vector<std::string>>, std::vector<std::string>> why;
  for (const ModelReport::Linear& l : report.linears) {
    for (const KernelChoice* c : {&l.decode, &l.prompt}) {
      auto& modules = why[{fmt::format("{} [{}]", c->impl, c->config), c->refusals}];
      modules.push_back(fmt::format("{}: {} ({})", l.modules, c->desc, c->reason));
    }
  }
  fmt::print("\n  why\n");
  for (const auto& [choice, modules] : why) {
    fmt::print("  {}\n    {}\n", choice.first, fmt::join(modules, "\n    "));
    for (const std::string& refusal : choice.second) fmt::print("      not {}\n", refusal);
  }
  if (!options.tensors) return;
  fmt::print("\n  {:<56} {:<8} {:>16} {:>12}  file\n", "tensor", "dtype", "shape", "bytes");
  for (const ModelReport::Tensor& t : report.tensors) {
    fmt::print("  {:<56} {:<8} {:>16} {:>12}  {}\n", t.name, t.dtype, fmt::format("{}", t.shape),
               t.bytes, t.file);
  }
}

}  // namespace

void add_inspect(CLI::App& app, Command& command) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App& c = *app.add_subcommand(
      "inspect", "Config, tensors, formats, bytes, and what each layer will run on and why");
  options->add_to(c);
  c.add_flag("--tensors", options->tensors, "List every stored tensor too");
  c.callback([options, &command] {
    command = [options] {
      const ModelReport report = inspect(options->model, options->device(), options->engine());
      if (options->json) {
        print_json(to_json(report));
      } else {
        print(report, *options);
      }
      return 0;
    };
  });
}

}  // namespace nibble::app
