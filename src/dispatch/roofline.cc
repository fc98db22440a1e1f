#include "dispatch/roofline.h"

#include <algorithm>
#include <cmath>

#include "dispatch/cholesky.h"

namespace nibble {
namespace {

// docs/dispatch.md says how these were chosen and what halving or doubling them does.
constexpr double kPower = 3;
// Tiles of the large kernels: 128 rows of the weights, the tensor core's own height, and enough
// rows of activations that fewer of them do not multiply the waves.
constexpr int64_t kTileN = 128;
constexpr int64_t kTileM = 256;
// And of TensorRT-LLM's small ones: their times double where 16 more rows fill another wave.
constexpr int64_t kSmallTileN = 128;
constexpr int64_t kSmallTileM = 16;
// Codes of 4 bits and a scale byte for 16 of them.
constexpr double kBytesPerValue = 0.5 + 1.0 / 16;

// Before any measurement: a launch, what one SM streams, the data sheet's bandwidth, and a good
// kernel's share of the data sheet's peak.
constexpr double kPriorOverheadUs = 2.5;
constexpr double kPriorStream = 0.6;
constexpr double kPriorPeakShare = 0.55;

// How far a constant may be off (standard deviation of its log): overhead, stream, bandwidth, peak.
constexpr Roofline kChipSigma = {0.5, 0.4, 0.1, 0.4};
// Little for the overhead: it is the launch's, and harness's, more than the kernel's.
constexpr Roofline kKernelSigma = {0.05, 0.15, 0.15, 0.3};
// Another device may be another harness and library version, so its overhead is nearly free.
constexpr Roofline kDeviceSigma = {0.5, 0.15, 0.1, 0.15};
constexpr Roofline kKernelOnDeviceSigma = {0.2, 0.15, 0.05, 0.15};
// What the formula misses of a time (of its log). The residual model has the rest.
constexpr double kMisfit = 0.15;

constexpr int kMaxSteps = 60;
constexpr double kConverged = 1e-9;  // relative gain of a step

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Gauss-Newton's system at one point.
struct System {
  double cost = 0;
  std::vector<double> gradient;  // of half the cost
  std::vector<double> normal;    // J^T J
};

}  // namespace

const ChipSpec& chip_of(std::string_view device) {
  const ChipSpec* chip = find_chip(device);
  return chip != nullptr ? *chip : default_chip();
}

GemmWork gemm_work(std::string_view kernel, int64_t m, int64_t n, int64_t k, int sms) {
  const bool small = kernel == kTrtllmSmall;
  const int64_t tiles =
      ceil_div(n, small ? kSmallTileN : kTileN) * ceil_div(m, small ? kSmallTileM : kTileM);
  const double dm = static_cast<double>(m);
  const double dn = static_cast<double>(n);
  const double dk = static_cast<double>(k);
  return {.waves_k = static_cast<double>(ceil_div(tiles, sms)) * dk / 1000,
          .mbytes = ((dn + dm) * dk * kBytesPerValue + 2 * dm * dn) / 1e6,
          .mflops = 2e-6 * dm * dn * dk};
}

double log_us(const Roofline& roofline, const GemmWork& work, Roofline* gradient) {
  const double overhead = std::exp(roofline[kOverhead]);
  const double stream = std::pow(work.waves_k * std::exp(roofline[kStream]), kPower);
  const double memory = std::pow(work.mbytes / std::exp(roofline[kBandwidth]), kPower);
  const double math = std::pow(work.mflops / std::exp(roofline[kPeak]), kPower);
  const double powers = stream + memory + math;
  const double body = std::pow(powers, 1 / kPower);
  const double us = overhead + body;
  if (gradient != nullptr) {
    const double share = body / powers / us;
    *gradient = {overhead / us, share * stream, -share * memory, -share * math};
  }
  return std::log(us);
}

RooflineFit::RooflineFit(std::span<const Timing> timings, const std::string& reference)
    : reference_(reference) {
  add_block({"", ""}, kChipSigma);
  for (const Timing& t : timings) {
    add_block({"", t.kernel}, kKernelSigma);
    if (t.device == reference) continue;
    add_block({t.device, ""}, kDeviceSigma);
    add_block({t.device, t.kernel}, kKernelOnDeviceSigma);
  }
  const ChipSpec& chip = chip_of(reference);
  const double prior[] = {kPriorOverheadUs, kPriorStream, chip.bandwidth,
                          kPriorPeakShare * chip.fp4_peak};
  for (int c = 0; c < kRooflineConstants; ++c) mean_[c] = std::log(prior[c]);
  fit(timings);
}

void RooflineFit::add_block(const Key& key, const Roofline& sigma) {
  if (!index_.emplace(key, mean_.size()).second) return;
  mean_.insert(mean_.end(), kRooflineConstants, 0.0);
  sigma_.insert(sigma_.end(), sigma.begin(), sigma.end());
}

std::vector<size_t> RooflineFit::blocks(const std::string& device,
                                        const std::string& kernel) const {
  std::vector<size_t> found = {0};
  for (const Key& key : {Key{"", kernel}, Key{device, ""}, Key{device, kernel}}) {
    if (key == Key{"", ""}) continue;
    if (const auto it = index_.find(key); it != index_.end()) {
      if (std::find(found.begin(), found.end(), it->second) == found.end()) {
        found.push_back(it->second);
      }
    }
  }
  return found;
}

Roofline RooflineFit::constants(const std::string& device, const std::string& kernel) const {
  Roofline sum{};
  for (const size_t block : blocks(device, kernel)) {
    for (int c = 0; c < kRooflineConstants; ++c) sum[c] += x_[block + c];
  }
  return sum;
}

// Levenberg-Marquardt on the deviations over their priors and the misfits over theirs.
void RooflineFit::fit(std::span<const Timing> timings) {
  struct Observation {
    std::vector<size_t> blocks;
    GemmWork work;
    double log_us;
  };
  std::vector<Observation> observations;
  for (const Timing& t : timings) {
    observations.push_back({blocks(t.device, t.kernel),
                            gemm_work(t.kernel, t.m, t.n, t.k, chip_of(t.device).sms),
                            std::log(t.us())});
  }
  const size_t size = mean_.size();
  const auto evaluate = [&](const std::vector<double>& x) {
    System s{.gradient = std::vector<double>(size), .normal = std::vector<double>(size * size)};
    for (size_t i = 0; i < size; ++i) {
      const double r = (x[i] - mean_[i]) / sigma_[i];
      s.cost += r * r;
      s.gradient[i] = r / sigma_[i];
      s.normal[i * size + i] = 1 / (sigma_[i] * sigma_[i]);
    }
    for (const Observation& o : observations) {
      Roofline sum{};
      for (const size_t block : o.blocks) {
        for (int c = 0; c < kRooflineConstants; ++c) sum[c] += x[block + c];
      }
      Roofline slope;
      const double r = (log_us(sum, o.work, &slope) - o.log_us) / kMisfit;
      s.cost += r * r;
      for (const size_t a : o.blocks) {
        for (int i = 0; i < kRooflineConstants; ++i) {
          s.gradient[a + i] += r * slope[i] / kMisfit;
          for (const size_t b : o.blocks) {
            for (int j = 0; j < kRooflineConstants; ++j) {
              s.normal[(a + i) * size + b + j] += slope[i] * slope[j] / (kMisfit * kMisfit);
            }
          }
        }
      }
    }
    return s;
  };
  x_ = mean_;
  System now = evaluate(x_);
  double damping = 1e-3;
  for (int step = 0; step < kMaxSteps; ++step) {
    std::vector<double> damped = now.normal;
    for (size_t i = 0; i < size; ++i) damped[i * size + i] *= 1 + damping;
    const std::vector<double> move = solve_positive_definite(damped, now.gradient);
    std::vector<double> next = x_;
    for (size_t i = 0; i < size; ++i) next[i] -= move[i];
    System there = evaluate(next);
    if (!(there.cost < now.cost)) {
      damping *= 5;
      continue;
    }
    const bool converged = now.cost - there.cost < kConverged * now.cost;
    x_ = std::move(next);
    now = std::move(there);
    damping /= 5;
    if (converged) return;
  }
}

}  // namespace nibble
