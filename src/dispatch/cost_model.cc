#include "dispatch/cost_model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "base/check.h"
#include "dispatch/cholesky.h"

namespace nibble {
namespace {

// What the roofline missed, as a Gaussian process over log2 of the sizes: a profile over m that
// every shape shares (tiles and code paths change with m) and one that fades with the distance of
// the shape. Standard deviations are of the log of a time.
constexpr double kProfileSigma = 0.10;
constexpr double kProfileOctaves = 1.0;  // of m over which it fades
constexpr double kLocalSigma = 0.12;
constexpr double kLocalOctaves = 1.0;
constexpr double kShapeOctaves = 0.8;  // of n and k
constexpr double kNoise = 0.02;        // from one measurement to the next
// Of what one device's residuals say about another's.
constexpr double kDeviceCorrelation = 0.7;

double gauss(double distance_squared, double scale) {
  return std::exp(-0.5 * distance_squared / (scale * scale));
}

// The timed device that answers for `device`.
std::string choose_source(std::span<const Timing> timings, std::string_view device,
                          std::span<const std::string> backends) {
  struct Candidate {
    size_t known = 0;
    double distance = 0;
    std::string name;
  };
  std::map<std::string, std::set<std::string>> timed;
  for (const Timing& t : timings) timed[t.device].insert(t.backend);
  Candidate best;
  const ChipSpec& chip = chip_of(device);
  for (const auto& [name, names] : timed) {
    // A device known by its very name is nearer than its twin.
    Candidate c{.name = name};
    c.distance = name == device ? -1 : chip_distance(chip_of(name), chip);
    for (const std::string& b : backends) c.known += names.contains(b);
    const bool better = c.known != best.known ? c.known > best.known : c.distance < best.distance;
    if (best.name.empty() || better) best = std::move(c);
  }
  return best.name;
}

}  // namespace

CostModel::CostModel(std::span<const Timing> timings, std::string_view device,
                     std::span<const std::string> backends) {
  NIBBLE_CHECK(!timings.empty() && timings.size() <= kMaxTimings, ErrorCode::kInvalidArgument,
               "expected 1 to {} timings to fit a cost model to, found {}", kMaxTimings,
               timings.size());
  source_ = choose_source(timings, device, backends);
  devices_ = {source_};
  std::set<std::pair<std::string, std::string>> pairs;
  for (const Timing& t : timings) {
    if (std::find(devices_.begin(), devices_.end(), t.device) == devices_.end()) {
      devices_.push_back(t.device);
    }
    pairs.emplace(t.device, t.kernel);
  }
  NIBBLE_CHECK(pairs.size() <= kMaxKernels, ErrorCode::kInvalidArgument,
               "expected at most {} pairs of device and backend to fit a cost model to, found {}",
               kMaxKernels, pairs.size());
  const RooflineFit fit(timings, source_);
  const ChipSpec& from = chip_of(source_);
  const ChipSpec& to = find_chip(device) != nullptr ? chip_of(device) : from;
  sms_ = from.sms;
  sibling_sms_ = to.sms;
  chip_ = sibling_ = fit.constants(source_, {});
  sibling_[kBandwidth] += std::log(to.bandwidth / from.bandwidth);
  sibling_[kPeak] += std::log(to.fp4_peak / from.fp4_peak);
  for (const Timing& t : timings) {
    if (find(t.kernel) != nullptr) continue;
    kernels_.push_back({t.kernel, fit.constants(source_, t.kernel), {}, {}});
    fit_residuals(timings, fit, kernels_.back());
  }
}

const CostModel::Kernel* CostModel::find(std::string_view name) const {
  for (const Kernel& kernel : kernels_) {
    if (kernel.name == name) return &kernel;
  }
  return nullptr;
}

CostModel::Point CostModel::point(int64_t m, int64_t n, int64_t k, size_t device) {
  return {.m = std::log2(static_cast<double>(m)),
          .n = std::log2(static_cast<double>(n)),
          .k = std::log2(static_cast<double>(k)),
          .device = device};
}

double CostModel::covariance(const Point& a, const Point& b) {
  const double m2 = (a.m - b.m) * (a.m - b.m);
  const double shape2 = (a.n - b.n) * (a.n - b.n) + (a.k - b.k) * (a.k - b.k);
  const double profile = kProfileSigma * kProfileSigma * gauss(m2, kProfileOctaves);
  const double local =
      kLocalSigma * kLocalSigma * gauss(m2, kLocalOctaves) * gauss(shape2, kShapeOctaves);
  return (profile + local) * (a.device == b.device ? 1 : kDeviceCorrelation);
}

void CostModel::fit_residuals(std::span<const Timing> timings, const RooflineFit& fit,
                              Kernel& kernel) const {
  std::vector<double> residuals;
  for (const Timing& t : timings) {
    if (t.kernel != kernel.name) continue;
    const auto device = std::find(devices_.begin(), devices_.end(), t.device);
    kernel.points.push_back(point(t.m, t.n, t.k, device - devices_.begin()));
    residuals.push_back(std::log(t.us()) -
                        log_us(fit.constants(t.device, t.kernel),
                               gemm_work(t.kernel, t.m, t.n, t.k, chip_of(t.device).sms)));
  }
  const size_t size = residuals.size();
  std::vector<double> matrix(size * size);
  for (size_t i = 0; i < size; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      matrix[i * size + j] = covariance(kernel.points[i], kernel.points[j]);
    }
    matrix[i * size + i] += kNoise * kNoise;
  }
  kernel.weights = solve_positive_definite(matrix, std::move(residuals));
}

double CostModel::estimate_us(std::string_view name, int64_t m, int64_t n, int64_t k) const {
  const Kernel* kernel = find(name);
  if (kernel == nullptr && name == kTrtllm) kernel = find(kTrtllmSmall);
  if (kernel == nullptr && name == kTrtllmSmall) kernel = find(kTrtllm);
  NIBBLE_CHECK(kernel != nullptr, ErrorCode::kUnsupported,
               "expected a backend that was timed, found '{}'", name);
  const GemmWork work = gemm_work(kernel->name, m, n, k, sms_);
  double result = log_us(kernel->roofline, work);
  const Point here = point(m, n, k, 0);
  for (size_t i = 0; i < kernel->points.size(); ++i) {
    result += kernel->weights[i] * covariance(here, kernel->points[i]);
  }
  result += log_us(sibling_, gemm_work("", m, n, k, sibling_sms_)) -
            log_us(chip_, gemm_work("", m, n, k, sms_));
  return std::exp(result);
}

ChoiceTable::ChoiceTable(const CostModel& model, std::span<const std::string> backends, int64_t n,
                         int64_t k, int64_t max_m) {
  NIBBLE_CHECK(!backends.empty() && n >= 1 && k >= 1 && max_m >= 1, ErrorCode::kInvalidArgument,
               "a choice needs a backend and sizes above 0, found {} backends, n={} k={} m={}",
               backends.size(), n, k, max_m);
  const bool apart = std::find(backends.begin(), backends.end(), kTrtllmSmall) != backends.end();
  const auto next = [](int64_t m) {
    return m < kDense ? m + 1 : m + (int64_t{1} << static_cast<int>(std::log2(m))) / kPerOctave;
  };
  for (int64_t m = 1; m <= max_m; m = next(m)) {
    size_t best = 0;
    double best_us = std::numeric_limits<double>::infinity();
    for (size_t b = 0; b < backends.size(); ++b) {
      const double us = model.estimate_us(kernel_name(backends[b], m, apart), m, n, k);
      if (us < best_us) {
        best = b;
        best_us = us;
      }
    }
    if (!backend_.empty() && backend_.back() == best) continue;
    first_m_.push_back(m);
    backend_.push_back(best);
  }
}

size_t ChoiceTable::choose(int64_t m) const {
  const auto after = std::upper_bound(first_m_.begin(), first_m_.end(), m);
  return backend_[after == first_m_.begin() ? 0 : after - first_m_.begin() - 1];
}

}  // namespace nibble
