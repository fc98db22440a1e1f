// Estimates of what a GEMM costs on a backend, from timings of other GEMMs: the roofline of
// dispatch/roofline.h times a smooth correction of what it missed nearby. docs/dispatch.md has the
// figures and says how the constants were chosen.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dispatch/roofline.h"
#include "dispatch/timing_table.h"

namespace nibble {

class CostModel {
 public:
  // Fits the timings to answer for `device`. That need not be among them: the timed device that
  // knows most of `backends` and among those the nearest by data sheet stands for it, and its times
  // change by what the data sheets say, for all backends alike. (Scaling each kernel apart would
  // reorder near ties by nothing that was measured.)
  // Throws kInvalidArgument where there are no timings or more than kMaxTimings.
  CostModel(std::span<const Timing> timings, std::string_view device,
            std::span<const std::string> backends = {});

  // The fit solves dense systems of that many rows: seconds at most.
  static constexpr size_t kMaxTimings = 2000;
  // And of four unknowns for each of these.
  static constexpr size_t kMaxKernels = 64;  // pairs of kernel and device

  // Of the device timed that stands for the one asked about.
  const std::string& source() const { return source_; }

  // Microseconds of D [m, n] = A [m, k] * B [n, k]^T by a kernel, see kernel_name(); where only the
  // other of TensorRT-LLM's two was timed, by that. Sizes are at least 1. Throws kUnsupported for
  // one that was never timed.
  double estimate_us(std::string_view kernel, int64_t m, int64_t n, int64_t k) const;

 private:
  struct Point {
    double m, n, k;  // log2
    size_t device;   // 0: source_
  };
  struct Kernel {
    std::string name;
    Roofline roofline;            // on source_
    std::vector<Point> points;    // timings on every device
    std::vector<double> weights;  // of their residuals
  };
  static Point point(int64_t m, int64_t n, int64_t k, size_t device);
  static double covariance(const Point& a, const Point& b);
  void fit_residuals(std::span<const Timing> timings, const RooflineFit& fit, Kernel& kernel) const;
  const Kernel* find(std::string_view name) const;

  std::string source_;
  int sms_ = 0;
  Roofline chip_{};  // of source_, without any kernel
  int sibling_sms_ = 0;
  Roofline sibling_{};                // of the device, from chip_ by the data sheets
  std::vector<std::string> devices_;  // source_ first
  std::vector<Kernel> kernels_;
};

// The best backend of one weight matrix for every m up to a limit, as steps: what a plan looks up.
class ChoiceTable {
 public:
  // Estimates at every m up to kDense, beyond that at kPerOctave sizes an octave.
  ChoiceTable(const CostModel& model, std::span<const std::string> backends, int64_t n, int64_t k,
              int64_t max_m);

  // An index into `backends`. m above max_m counts as max_m.
  size_t choose(int64_t m) const;
  size_t steps() const { return first_m_.size(); }

  static constexpr int64_t kDense = 64;
  static constexpr int kPerOctave = 16;

 private:
  std::vector<int64_t> first_m_;  // ascending, from 1
  std::vector<size_t> backend_;
};

}  // namespace nibble
