#include "nibble/bench_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "nibble/error.h"
#include "nibble/options.h"

namespace nibble::app {
namespace {

std::string key(const std::string& op, const std::string& impl, const std::string& desc,
                int threads) {
  return fmt::format("{} {} {} {}", op, impl, desc, threads);
}

nlohmann::ordered_json to_json(const BenchRow& r, int threads, double ratio) {
  nlohmann::ordered_json json = {{"op", r.op},
                                 {"impl", r.impl},
                                 {"desc", r.desc},
                                 {"threads", threads},
                                 {"seconds", r.seconds},
                                 {"fastest", r.fastest},
                                 {"slowest", r.slowest},
                                 {"bytes", r.bytes},
                                 {"flops", r.flops},
                                 {"rate", r.rate},
                                 {"unit", r.unit},
                                 {"share_of_read", r.share},
                                 {"share_of_huge_read", r.share_of_huge}};
  if (r.predicted > 0) json["predicted_seconds"] = r.predicted;
  if (ratio > 0) json["against"] = ratio;
  return json;
}

double ratio_of(const PredictedRow& r) {
  return r.published_tflops > 0 ? r.tflops / r.published_tflops : 0;
}

nlohmann::ordered_json to_json(const PredictedRow& r) {
  nlohmann::ordered_json json = {{"chip", r.chip},
                                 {"weight", to_string(r.weight)},
                                 {"n", r.n},
                                 {"k", r.k},
                                 {"m", r.m},
                                 {"source", r.source},
                                 {"impl", r.impl},
                                 {"predicted_us", r.us},
                                 {"predicted_tflops", r.tflops}};
  if (!r.desc.empty()) json["desc"] = r.desc;
  if (r.mma > 0) {
    json["tiles"] = r.tiles;
    json["mma_per_tile"] = r.mma;
    json["bytes_per_tile"] = r.bytes;
  }
  if (!r.published.empty()) {
    json["published"] = r.published;
    json["published_tflops"] = r.published_tflops;
    json["ratio"] = ratio_of(r);
  }
  return json;
}

constexpr std::string_view kPredictedLine =
    "{:<12} {:<5} {:>6} {:>6} {:>5} {:<8} {:<20} {:<58} {:>7} {:>7} {:>8} {:>9} {:>8}  {}\n";

void print_predicted_heading() {
  fmt::print(
      "\n*predicted*, not measured. source: \"estimate\", of the implementation's own constants "
      "(docs/sm120.md); \"fit\", of the cost model fitted to the published timings in bench/data "
      "(docs/dispatch.md). published: the fastest there at this size.\n");
  fmt::print(fmt::runtime(kPredictedLine), "chip", "", "n", "k", "m", "source", "impl", "tile",
             "tiles", "mma", "bytes", "us", "TFLOP/s", "published");
}

void print(const PredictedRow& r) {
  const size_t tile = r.desc.find('[');
  const auto count = [&](int64_t x) { return r.mma > 0 ? fmt::format("{}", x) : "-"; };
  fmt::print(
      fmt::runtime(kPredictedLine), r.chip, to_string(r.weight), r.n, r.k, r.m, r.source, r.impl,
      tile == std::string::npos ? r.desc : r.desc.substr(tile), count(r.tiles), count(r.mma),
      count(r.bytes), fmt::format("{:.2f}", r.us), fmt::format("{:.1f}", r.tflops),
      r.published.empty()
          ? "-"
          : fmt::format("{:.1f} {}, ratio {:.2f}", r.published_tflops, r.published, ratio_of(r)));
}

void print(const BenchRow& r, int threads, double ratio) {
  const std::string share = r.share > 0 ? fmt::format("  {:.0f} % of read", 100 * r.share) : "";
  const std::string huge =
      r.share_of_huge > 0 ? fmt::format(", {:.0f} % in huge pages", 100 * r.share_of_huge) : "";
  const std::string predicted =
      r.predicted > 0 ? fmt::format("  (predicted {:.2f} us)", 1e6 * r.predicted) : "";
  const std::string against = ratio > 0 ? fmt::format("  {:.3f} of before", ratio) : "";
  fmt::print("{:<9} {:<28} {:<50} {:>3} {:>11.2f} us {:>9.1f} {}{}{}{}{}\n", r.op, r.impl, r.desc,
             threads, r.seconds * 1e6, r.rate, r.unit, share, huge, predicted, against);
  std::fflush(stdout);
}

std::map<std::string, double> read_before(const std::string& path) {
  std::map<std::string, double> before;
  try {
    const auto json = nlohmann::json::parse(read_file(path));
    for (const auto& row : json.at("rows")) {
      before[key(row.at("op"), row.at("impl"), row.at("desc"), row.at("threads"))] =
          row.at("seconds");
    }
  } catch (const nlohmann::json::exception& e) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{}: expected a file that `nibble bench --json FILE` wrote, found: {}",
                            path, e.what()));
  }
  return before;
}

}  // namespace

BenchReport::BenchReport(const DeviceInfo& device, const std::string& against, bool table)
    : json_(std::make_unique<nlohmann::ordered_json>(
          nlohmann::ordered_json{{"device", device.name},
                                 {"driver", device.driver},
                                 {"threads", device.threads},
                                 {"version", NIBBLE_VERSION},
                                 {"rows", nlohmann::ordered_json::array()}})),
      title_(device.name),
      table_(table) {
  if (!against.empty()) before_ = read_before(against);
}

BenchReport::~BenchReport() = default;

double BenchReport::ratio_of(const BenchRow& row, int threads) const {
  const auto it = before_.find(key(row.op, row.impl, row.desc, threads));
  return it == before_.end() || it->second <= 0 ? 0 : row.seconds / it->second;
}

void BenchReport::add(const BenchRow& row, int threads) {
  const double ratio = ratio_of(row, threads);
  if (ratio > 0) ratios_.push_back(ratio);
  (*json_)["rows"].push_back(to_json(row, threads, ratio));
  rows_.push_back(row);
  if (table_) print(row, threads, ratio);
}

void BenchReport::add(const PredictedRow& row) {
  (*json_)["predicted"].push_back(to_json(row));
  if (!table_) return;
  if (!predicting_) print_predicted_heading();
  predicting_ = true;
  print(row);
}

void BenchReport::note(const std::string& text) {
  (*json_)["note"] = text;
  if (table_) fmt::print("{}\n", text);
}

void BenchReport::finish(bool json, const std::string& json_file, const std::string& plot_file) {
  if (!before_.empty()) {
    double sum = 0;
    for (const double r : ratios_) sum += std::log(r);
    const double mean = ratios_.empty() ? 0 : std::exp(sum / static_cast<double>(ratios_.size()));
    (*json_)["against"] = {{"rows", ratios_.size()}, {"geomean", mean}};
    if (table_) {
      fmt::print("{} rows in both files; time as a share of before, geometric mean: {:.3f}\n",
                 ratios_.size(), mean);
    }
  }
  if (json && json_file.empty()) print_json(*json_);
  if (!json_file.empty()) write_file(json_file, json_->dump(2) + "\n");
  if (plot_file.empty()) return;
  const std::string svg = roofline_svg(rows_, title_);
  if (svg.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "--plot: no GEMM row to draw");
  }
  write_file(plot_file, svg);
}

namespace {

constexpr double kWidth = 900, kHeight = 600, kMargin = 70;

// A logarithmic axis of whole decades.
struct Axis {
  int first, last;  // powers of ten
  double from, to;  // pixels

  Axis(double least, double largest, double from_pixel, double to_pixel)
      : first(static_cast<int>(std::floor(std::log10(least)))),
        last(std::max(first + 1, static_cast<int>(std::ceil(std::log10(largest))))),
        from(from_pixel),
        to(to_pixel) {}
  double operator()(double x) const {
    return from + (std::log10(x) - first) / (last - first) * (to - from);
  }
};

std::string escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    out += c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : std::string(1, c);
  }
  return out;
}

std::string text_at(double x, double y, const std::string& text, const char* anchor = "middle") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor,
                     escape(text));
}

std::string line(double x1, double y1, double x2, double y2, const char* color) {
  return fmt::format(
      "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\"/>\n", x1, y1, x2,
      y2, color);
}

}  // namespace

std::string roofline_svg(const std::vector<BenchRow>& rows, const std::string& title) {
  double bandwidth = 0, peak = 0, least_x = INFINITY, largest_x = 0, least_y = INFINITY;
  std::vector<std::string> impls;
  for (const BenchRow& r : rows) {
    if (r.op == "read") bandwidth = r.bytes / r.seconds;
    if (r.op != "gemm" || r.flops <= 0) continue;
    peak = std::max(peak, r.flops / r.seconds);
    least_y = std::min(least_y, r.flops / r.seconds);
    least_x = std::min(least_x, r.flops / r.bytes);
    largest_x = std::max(largest_x, r.flops / r.bytes);
    if (std::ranges::find(impls, r.impl) == impls.end()) impls.push_back(r.impl);
  }
  if (impls.empty()) return "";
  const Axis x(least_x, std::max(largest_x, 1.01 * peak / std::max(bandwidth, 1.0)), kMargin,
               kWidth - kMargin);
  const Axis y(least_y, 1.01 * peak, kHeight - kMargin, kMargin);
  constexpr const char* kColors[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                     "#e69f00", "#56b4e9", "#000000"};
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" font-family=\"sans-"
      "serif\" font-size=\"12\">\n<rect width=\"{0}\" height=\"{1}\" fill=\"white\"/>\n",
      kWidth, kHeight);
  svg += text_at(kWidth / 2, 30, title + ": FLOP/s over FLOP per byte of weights");
  for (int i = x.first; i <= x.last; ++i) {
    const double at = x(std::pow(10.0, i));
    svg += line(at, kMargin, at, kHeight - kMargin, "#dddddd");
    svg += text_at(at, kHeight - kMargin + 20, fmt::format("1e{}", i));
  }
  for (int i = y.first; i <= y.last; ++i) {
    const double at = y(std::pow(10.0, i));
    svg += line(kMargin, at, kWidth - kMargin, at, "#dddddd");
    svg += text_at(kMargin - 8, at + 4, fmt::format("1e{}", i), "end");
  }
  if (bandwidth > 0) {
    const double left = std::max(std::pow(10.0, x.first), std::pow(10.0, y.first) / bandwidth);
    const double ridge = std::max(left, peak / bandwidth);
    svg += line(x(left), y(left * bandwidth), x(ridge), y(peak), "black");
    svg += line(x(ridge), y(peak), kWidth - kMargin, y(peak), "black");
  }
  for (const BenchRow& r : rows) {
    if (r.op != "gemm" || r.flops <= 0) continue;
    const auto impl = std::ranges::find(impls, r.impl) - impls.begin();
    svg += fmt::format(
        "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\" fill=\"{}\"><title>{}</title></circle>\n",
        x(r.flops / r.bytes), y(r.flops / r.seconds), kColors[impl % std::ssize(kColors)],
        escape(fmt::format("{} {}: {:.2f} us", r.impl, r.desc, r.seconds * 1e6)));
  }
  for (size_t i = 0; i < impls.size(); ++i) {
    const double at = kMargin + 16 * static_cast<double>(i + 1);
    svg += fmt::format("<circle cx=\"{}\" cy=\"{}\" r=\"4\" fill=\"{}\"/>\n", kMargin + 14, at - 4,
                       kColors[i % std::size(kColors)]);
    svg += text_at(kMargin + 24, at, impls[i], "start");
  }
  return svg + "</svg>\n";
}

}  // namespace nibble::app
