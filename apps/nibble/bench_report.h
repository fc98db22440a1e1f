// What becomes of bench rows: a table, JSON, ratios to an earlier run, a plot.
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "nibble/bench.h"

namespace nibble::app {

class BenchReport {
 public:
  // `against`: a file that finish() wrote, or empty. Throws kIo, kInvalidArgument for another file.
  BenchReport(const DeviceInfo& device, const std::string& against, bool table);
  ~BenchReport();

  void add(const BenchRow& row, int threads);
  void add(const PredictedRow& row);
  void note(const std::string& text);

  // Prints what is asked for on stdout: JSON where `json` and no file is named, and, beside a
  // table, the geometric mean of the ratios. Throws kIo.
  void finish(bool json, const std::string& json_file, const std::string& plot_file);

 private:
  // The row's time as a share of that in the other file; 0 where it is not there.
  double ratio_of(const BenchRow& row, int threads) const;

  std::unique_ptr<nlohmann::ordered_json> json_;
  std::map<std::string, double> before_;  // seconds by row
  std::vector<double> ratios_;
  std::vector<BenchRow> rows_;
  std::string title_;
  bool table_;
  bool predicting_ = false;  // the predictions' heading was printed
};

// A log-log plot of FLOP/s over FLOP per byte of weights, one mark for each "gemm" row, under the
// roof of the "read" row's bandwidth and of the fastest row. Empty where there is no such row.
std::string roofline_svg(const std::vector<BenchRow>& rows, const std::string& title);

}  // namespace nibble::app
