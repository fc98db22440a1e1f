#include "nibble/quantize.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "nibble/commands.h"
#include "nibble/error.h"
#include "nibble/options.h"
#include "nibble/progress.h"

namespace nibble::app {
namespace {

struct Options {
  std::string src, dst;
  QuantizeOptions quantize;
  int threads = 0;
  bool json = false, quiet = false;
};

nlohmann::ordered_json to_json(const QuantizeReport& report) {
  nlohmann::ordered_json json = {
      {"seconds", report.seconds},
      {"bytes_in", report.bytes_in},
      {"bytes_out", report.bytes_out},
      {"gigabytes_per_second", static_cast<double>(report.bytes_in) / 1e9 / report.seconds},
      {"relative_error", report.relative_error},
      {"snr_db", report.snr_db},
      {"peak_memory_mib", peak_memory_mib()},
      {"tensors", nlohmann::ordered_json::array()},
      {"unquantized", report.unquantized}};
  for (const QuantizedTensor& t : report.tensors) {
    json["tensors"].push_back({{"name", t.name},
                               {"n", t.n},
                               {"k", t.k},
                               {"format", to_string(t.format)},
                               {"global_decode_scale", t.global_decode_scale},
                               {"relative_error", t.relative_error},
                               {"snr_db", t.snr_db}});
  }
  return json;
}

void print(const QuantizeReport& report, const Options& options) {
  if (!options.quiet) {
    fmt::print("{:<52} {:>14} {:>7} {:>12} {:>9}\n", "tensor", "n x k", "format", "rel. error",
               "SNR dB");
    for (const QuantizedTensor& t : report.tensors) {
      fmt::print("{:<52} {:>14} {:>7} {:>12.6f} {:>9.2f}\n", t.name,
                 fmt::format("{} x {}", t.n, t.k), to_string(t.format), t.relative_error, t.snr_db);
    }
  }
  fmt::print(
      "{}: {} tensors to {}, {} left as they are; relative error {:.6f}, SNR {:.2f} dB; "
      "{:.1f} MB -> {:.1f} MB in {:.2f} s, {:.2f} GB/s; peak memory {:.0f} MiB\n",
      options.dst, report.tensors.size(), to_string(options.quantize.format),
      report.unquantized.size(), report.relative_error, report.snr_db,
      static_cast<double>(report.bytes_in) / 1e6, static_cast<double>(report.bytes_out) / 1e6,
      report.seconds, static_cast<double>(report.bytes_in) / 1e9 / report.seconds,
      peak_memory_mib());
}

int run(const Options& options) {
  catch_interrupts();
  QuantizeReport report;
  {
    Progress progress("quantize", "GB", 1e9, options.json);
    report = quantize_checkpoint(
        options.src, options.dst, options.quantize, Device::cpu(options.threads),
        [&](const QuantizeProgress& p) {
          if (interrupted()) throw Error(ErrorCode::kCancelled, "interrupted; nothing was written");
          progress.update(p.done_bytes, p.total_bytes, std::string(p.tensor));
        });
  }
  if (options.json) {
    print_json(to_json(report));
  } else {
    print(report, options);
  }
  return 0;
}

// An option whose words are to_string of these values; the first is the default.
template <class Enum>
void add_choice(CLI::App& c, const std::string& name, Enum& value, std::initializer_list<Enum> all,
                const std::string& help) {
  std::map<std::string, Enum> by_name;
  std::vector<std::string> words;
  for (const Enum e : all) {
    words.emplace_back(to_string(e));
    by_name[words.back()] = e;
  }
  c.add_option_function<std::string>(
       name, [&value, by_name](const std::string& word) { value = by_name.at(word); },
       fmt::format("{} ({} unless given)", help, words[0]))
      ->check(CLI::IsMember(words));
}

}  // namespace

void add_quantize(CLI::App& app, Command& command) {
  auto options = std::make_shared<Options>();
  CLI::App& c =
      *app.add_subcommand("quantize", "Turn a bf16, fp16 or fp32 checkpoint into a 4-bit one");
  c.add_option("src", options->src, "Model folder to read")->required();
  c.add_option("dst", options->dst, "Model folder to make")->required();
  QuantizeOptions& q = options->quantize;
  add_choice(c, "--format", q.format, {WeightFormat::kNvfp4, WeightFormat::kMxfp4}, "4-bit format");
  add_choice(c, "--convention", q.convention,
             {Convention::kModelOpt, Convention::kCompressedTensors}, "How tensors are named");
  add_choice(c, "--method", q.method,
             {QuantizeMethod::kRtn, QuantizeMethod::kMse, QuantizeMethod::kFourOverSix},
             "How block scales are chosen");
  add_choice(c, "--scale-rule", q.scale_rule,
             {Mxfp4ScaleRule::kCeil, Mxfp4ScaleRule::kFloor, Mxfp4ScaleRule::kEven},
             "mxfp4 with rtn: how a block's power of two is chosen");
  const std::map<std::string, LmHead> heads = {
      {"nvfp4", LmHead::kNvfp4}, {"fp8", LmHead::kFp8}, {"none", LmHead::kKeep}};
  c.add_option_function<std::string>(
       "--lm-head", [&q, heads](const std::string& word) { q.lm_head = heads.at(word); },
       "What becomes of the output matrix; none: as it is (fp8 for tied embeddings, else none, "
       "unless given)")
      ->check(CLI::IsMember(std::vector<std::string>{"nvfp4", "fp8", "none"}));
  c.add_option("--ignore", options->quantize.ignore,
               "Leave these modules as they are: globs on module paths or re:regex (repeatable)")
      ->allow_extra_args(false);
  c.add_option("--max-shard-bytes", options->quantize.max_shard_bytes, "Split files above this")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  c.add_flag("--overwrite", options->quantize.overwrite, "Replace dst if it is a model folder");
  c.add_option("--threads", options->threads, "CPU threads (0: every core)")
      ->check(CLI::Range(0, 1024));
  c.add_flag("-q,--quiet", options->quiet, "Only the last line of the report");
  c.add_flag("--json", options->json, "Print the report as one JSON object on stdout");
  c.callback([options, &command] { command = [options] { return run(*options); }; });
}

}  // namespace nibble::app
