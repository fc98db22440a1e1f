// The physical half of the cost model: a time from four constants of a kernel on a chip.
//
//   us = overhead + ((stream * waves * k)^p + (bytes / bandwidth)^p + (flops / peak)^p)^(1/p)
//
// `stream` is what a block of threads needs to run down k, however few rows it has: it rules where
// a GEMM has fewer tiles than the chip has SMs. A power sum, not a maximum, because the measured
// times have no corner.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dispatch/chips.h"
#include "dispatch/timing_table.h"

namespace nibble {

enum RooflineConstant { kOverhead, kStream, kBandwidth, kPeak, kRooflineConstants };

// Natural logs of: overhead in us, stream in us per 1000 of k, bandwidth in TB/s, peak in TFLOP/s.
using Roofline = std::array<double, kRooflineConstants>;

struct GemmWork {
  double waves_k = 0;  // waves of tiles over the SMs, times k / 1000
  double mbytes = 0;   // codes, block scales and a 16-bit output
  double mflops = 0;
};
GemmWork gemm_work(std::string_view kernel, int64_t m, int64_t n, int64_t k, int sms);

// log(us), and where `gradient` is not null its derivative by the four constants.
double log_us(const Roofline& roofline, const GemmWork& work, Roofline* gradient = nullptr);

// Constants fitted to every timing at once: the chip's, plus a deviation of each kernel, and for
// devices other than the reference one of the device and one of the kernel on it. Each deviation is
// held near 0 by its prior, so a kernel that was seen in one corner only borrows the rest from its
// neighbours. (Kernels fitted apart lost 4.1 % over left-out shapes, mostly by guessing the
// overhead of one from three shapes.)
class RooflineFit {
 public:
  // `reference`: the device among the timings that will be asked about.
  RooflineFit(std::span<const Timing> timings, const std::string& reference);

  // Of a kernel that was never seen on the device, what is known without that; {} gives the chip.
  Roofline constants(const std::string& device, const std::string& kernel) const;

 private:
  // Deviations are kept in blocks of four numbers: (device, kernel), either of them "".
  using Key = std::pair<std::string, std::string>;
  std::vector<size_t> blocks(const std::string& device, const std::string& kernel) const;
  void add_block(const Key& key, const Roofline& sigma);
  void fit(std::span<const Timing> timings);

  std::string reference_;
  std::map<Key, size_t> index_;
  std::vector<double> mean_;   // [4 * blocks]
  std::vector<double> sigma_;  // of the prior
  std::vector<double> x_;
};

// The chip that a device's name means, or the default one.
const ChipSpec& chip_of(std::string_view device);

}  // namespace nibble
