#include "nibble/tune.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/check.h"
#include "cases/gemm_timing.h"
#include "dispatch/gemm_plan.h"
#include "dispatch/select.h"
#include "dispatch/tuning.h"

namespace nibble {
namespace {

using cases::Launch;
using cases::TimedGemm;
using cases::Times;

// Two timings of one kernel in one run differ by up to this even where these two did not.
constexpr double kLeastNoise = 0.01;
// By an estimate this much worse than the best, a candidate is not timed.
constexpr double kHopeless = 2.0;

struct Candidate {
  const GemmImpl* impl;
  KernelConfig config;
  double estimate_us;
};

// The `top` best of every implementation by estimate; all where it makes none.
std::vector<Candidate> candidates_for(const GemmDesc& desc, const Device& device, int top) {
  std::vector<Candidate> all;
  double least = INFINITY;
  for (const GemmImpl& impl : impls<GemmImpl>()) {
    if (impl.name.starts_with("ref_") || !impl.can_implement(desc, device.info())) continue;
    std::vector<Candidate> own;
    for (const KernelConfig& config : candidates_of(impl, desc, device.info())) {
      const double us = impl.estimate_us ? impl.estimate_us(desc, config, device.info()) : 0.0;
      own.push_back({&impl, config, us});
      if (us > 0) least = std::min(least, us);
    }
    std::ranges::stable_sort(own, {}, &Candidate::estimate_us);
    if (impl.estimate_us && own.size() > static_cast<size_t>(top)) {
      own.erase(own.begin() + top, own.end());
    }
    all.insert(all.end(), own.begin(), own.end());
  }
  std::erase_if(all, [&](const Candidate& c) { return c.estimate_us > kHopeless * least; });
  return all;
}

// The model's choice goes first and second: how much its two timings differ is the noise.
TunedChoice time_candidates(const GemmDesc& desc, const Selection<GemmImpl>& model,
                            const TimedGemm& gemm, const Device& device, int top) {
  std::vector<Candidate> contenders(2, {model.impl, model.config, model.estimate_us});
  for (const Candidate& c : candidates_for(desc, device, top)) {
    if (c.impl != model.impl || c.config != model.config) contenders.push_back(c);
  }
  std::vector<Launch> launches;
  for (const Candidate& c : contenders) launches.push_back(gemm.launch(*c.impl, c.config, desc));
  const std::vector<Times> times = cases::time_in_turns(device, launches);
  const double first = times[0].median, second = times[1].median;
  const auto best = std::ranges::min_element(times.begin() + 1, times.end(), {}, &Times::median);
  const Candidate& winner = contenders[static_cast<size_t>(best - times.begin())];
  return {std::string(kOpName<GemmImpl>),
          to_string(desc),
          std::string(winner.impl->name),
          winner.config,
          best->median * 1e6,
          std::min(first, second) * 1e6,
          std::max(kLeastNoise, std::fabs(first - second) / std::min(first, second))};
}

class GemmTuner {
 public:
  GemmTuner(const Device& device, const TuneOptions& options, TuningTable table,
            const std::function<void(const TuneStep&)>& on_step)
      : device_(device), options_(options), table_(std::move(table)), on_step_(on_step) {
    for (const TuneShape& s : options.shapes) total_ += std::ssize(descs_of(s));
  }

  TuneReport run() {
    for (const TuneShape& shape : options_.shapes) tune(shape);
    if (done_ > 0) report_.geomean_gain = std::exp(log_gain_ / static_cast<double>(done_));
    return report_;
  }

 private:
  ActivationMode activation() const { return default_activation(device_.info()); }

  const WeightLayoutImpl& layout_of(const TuneShape& s) const {
    WeightTensor header;
    header.name = "tune";
    header.format = s.format;
    header.n = s.n;
    header.k = s.k;
    return choose_layout(header, device_, activation());
  }

  std::vector<GemmDesc> descs_of(const TuneShape& s) const {
    PreparedWeight header;
    header.format = s.format;
    header.n = s.n;
    header.k = s.k;
    header.layout = layout_of(s).layout;
    const DType type = device_.info().kind == DeviceKind::kCuda ? DType::kBF16 : DType::kF32;
    return planned_descs(
        header, {.max_m = options_.max_m, .a = type, .d = type, .activation = activation()},
        device_.info());
  }

  void tune(const TuneShape& s) {
    std::optional<TimedGemm> gemm;
    for (const GemmDesc& desc : descs_of(s)) {
      const TunedChoice* known = table_.find(kOpName<GemmImpl>, to_string(desc));
      const bool resumed = known != nullptr;
      if (!resumed) {
        if (!gemm) {
          gemm.emplace(TimedGemm::Options{s.format, s.n, s.k, options_.max_m}, desc.a_type,
                       layout_of(s), device_);
        }
        table_.put(time_candidates(desc, select_by_model<GemmImpl>(desc, device_), *gemm, device_,
                                   options_.top));
        known = table_.find(kOpName<GemmImpl>, to_string(desc));
      }
      count(*known, resumed);
    }
    if (gemm) table_.write(options_.path);
  }

  void count(const TunedChoice& choice, bool resumed) {
    ++done_;
    ++(resumed ? report_.resumed : report_.timed);
    if (choice.pays()) {
      ++report_.used;
      log_gain_ += std::log(choice.model_us / choice.us);
    }
    on_step_({done_, total_, choice.desc, choice.us, choice.model_us, choice.pays(), resumed});
  }

  const Device& device_;
  const TuneOptions& options_;
  TuningTable table_;
  const std::function<void(const TuneStep&)>& on_step_;
  int64_t total_ = 0, done_ = 0;
  double log_gain_ = 0.0;
  TuneReport report_;
};

}  // namespace

std::filesystem::path default_tuning_path(const Device& device) {
  const auto path = tuning_path(device.info());
  NIBBLE_CHECK(path, ErrorCode::kInvalidArgument,
               "tune: no folder for the table: set NIBBLE_CACHE_DIR or HOME");
  return *path;
}

TuneReport tune(const Device& device, const TuneOptions& options,
                const std::function<void(const TuneStep&)>& on_step) {
  constexpr auto kBad = ErrorCode::kInvalidArgument;
  NIBBLE_CHECK(options.max_m >= 1, kBad, "tune: max_m must be at least 1, found {}", options.max_m);
  NIBBLE_CHECK(options.top >= 1, kBad, "tune: top must be at least 1, found {}", options.top);
  for (const TuneShape& s : options.shapes) {
    NIBBLE_CHECK(s.n > 0 && s.k > 0, kBad, "tune: expected a shape n x k, found {} x {}", s.n, s.k);
  }
  bool gemm = true;
  for (const std::string& op : options.skip_ops) {
    std::vector<std::string_view> known;
    for (const OpTable& table : op_tables()) known.push_back(table.op);
    NIBBLE_CHECK(std::ranges::find(known, op) != known.end(), kBad,
                 "tune: unknown op '{}'; known: {}", op, fmt::join(known, ", "));
    if (op == kOpName<GemmImpl>) gemm = false;
  }
  if (!gemm) return {};
  const TuningKey key = tuning_key(device.info());
  TuningTable table = options.fresh ? TuningTable(key) : TuningTable::read(options.path, key);
  return GemmTuner(device, options, std::move(table), on_step).run();
}

}  // namespace nibble
