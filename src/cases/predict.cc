// What the cost models say of chips that are not here.
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "cases/case_file.h"
#include "dispatch/chips.h"
#include "dispatch/cost_model.h"
#include "dispatch/gemm_plan.h"
#include "dispatch/select.h"
#include "dispatch/timing_table.h"
#include "nibble/bench.h"

namespace nibble {
namespace {

constexpr std::string_view kPredictedChips[] = {"B200", "B300", "RTX PRO 6000", "GB10"};

using Size = std::tuple<WeightFormat, int64_t, int64_t, int64_t>;  // n, k, m

double tflops(int64_t m, int64_t n, int64_t k, double us) {
  return 2e-6 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k) / us;
}

// The implementations' own estimates, with the weight layout and the order of the activations'
// scales that a plan would have.
bool estimate(const DeviceInfo& device, PredictedRow& row) {
  WeightTensor header;
  header.format = row.weight;
  header.n = row.n;
  header.k = row.k;
  for (const WeightLayoutImpl& layout : weight_layouts()) {
    if (!layout.can_prepare(header, device)) continue;
    Selection<GemmImpl> best;
    GemmDesc chosen;
    for (const ScaleLayout a_layout : preferred_layouts(row.m)) {
      const GemmDesc desc{.m = row.m,
                          .n = row.n,
                          .k = row.k,
                          .weight = row.weight,
                          .layout = layout.layout,
                          .activation = ActivationMode::kFp4,
                          .a_type = DType::kU8,
                          .d_type = DType::kBF16,
                          .a_layout = a_layout};
      for (const GemmImpl& impl : impls<GemmImpl>()) {
        if (!impl.estimate_us || !impl.can_implement(desc, device)) continue;
        Selection<GemmImpl> own;
        best_config(impl, desc, device, own);
        if (best.impl != nullptr && own.estimate_us >= best.estimate_us) continue;
        best = own;
        chosen = desc;
      }
    }
    if (best.impl == nullptr) continue;
    row.source = "estimate";
    row.impl = best.impl->name;
    row.desc = fmt::format("{} [{}]", to_string(chosen), to_string(best.config));
    row.us = best.estimate_us;
    row.tflops = tflops(row.m, row.n, row.k, row.us);
    if (best.impl->work) {
      const TileWork work = best.impl->work(chosen, best.config);
      row.tiles = work.tiles;
      row.mma = work.mma;
      row.bytes = work.bytes;
    }
    return true;
  }
  return false;
}

class Published {
 public:
  Published() {
    for (const cases::CaseText& table : cases::timing_tables()) {
      for (Timing& t : parse_timings(table.text, std::string(table.name))) {
        backends_.insert(t.backend);
        timings_.push_back(std::move(t));
      }
    }
    check_unique(timings_);
  }

  void add_sizes(std::set<Size>& sizes) const {
    for (const Timing& t : timings_) sizes.insert({WeightFormat::kNvfp4, t.n, t.k, t.m});
  }

  // The fastest on this chip, whatever name a table has for it.
  const Timing* fastest(const ChipSpec& chip, int64_t m, int64_t n, int64_t k) const {
    const Timing* best = nullptr;
    for (const Timing& t : timings_) {
      if (t.m != m || t.n != n || t.k != k) continue;
      const ChipSpec* const of = find_chip(t.device);
      if (of == nullptr || of->sm != chip.sm || chip_distance(*of, chip) != 0) continue;
      if (best == nullptr || t.tflops > best->tflops) best = &t;
    }
    return best;
  }

  // A size that was timed is foretold from the others: its shape is left out of the fit, which is
  // asked as the device of that table, because harnesses differ.
  void fit(const ChipSpec& chip, const Timing* timed, PredictedRow& row) {
    const std::string device = timed ? timed->device : std::string(chip.name);
    const Key key = timed ? Key{device, row.n, row.k} : Key{device, 0, 0};
    auto model = models_.find(key);
    if (model == models_.end()) {
      std::vector<Timing> rest = timings_;
      std::erase_if(rest, [&](const Timing& t) { return Key{t.device, t.n, t.k} == key; });
      model = models_.try_emplace(key, rest, device).first;
    }
    row.source = "fit";
    row.desc = fmt::format("as {}", model->second.source());
    const bool apart = backends_.contains(kTrtllmSmall);
    for (const std::string& backend : backends_) {
      const std::string_view kernel = kernel_name(backend, row.m, apart);
      const double us = model->second.estimate_us(kernel, row.m, row.n, row.k);
      if (row.us != 0 && us >= row.us) continue;
      row.impl = backend;
      row.us = us;
    }
    row.tflops = tflops(row.m, row.n, row.k, row.us);
  }

 private:
  using Key = std::tuple<std::string, int64_t, int64_t>;  // a device and the shape left out

  std::vector<Timing> timings_;
  std::set<std::string> backends_;
  std::map<Key, CostModel> models_;
};

}  // namespace

void predict(const PredictionSink& sink) {
  Published published;
  std::set<Size> sizes;
  published.add_sizes(sizes);
  for (const cases::CaseRow& row : cases::builtin_cases("bench_gemm_cuda")) {
    sizes.insert({row.format("weight"), row.integer("n"), row.integer("k"), row.integer("m")});
  }
  for (const std::string_view name : kPredictedChips) {
    const ChipSpec& chip = *find_chip(name);
    const DeviceInfo device = device_info(chip);
    for (const auto& [weight, n, k, m] : sizes) {
      PredictedRow row;
      row.chip = name;
      row.weight = weight;
      row.m = m;
      row.n = n;
      row.k = k;
      const bool nvfp4 = weight == WeightFormat::kNvfp4;
      const Timing* const best = nvfp4 ? published.fastest(chip, m, n, k) : nullptr;
      if (best != nullptr) {
        row.published = fmt::format("{} ({})", best->backend, best->device);
        row.published_tflops = best->tflops;
      }
      PredictedRow own = row;
      if (estimate(device, own)) sink(own);
      if (!nvfp4 || (chip.sm != 100 && chip.sm != 103)) continue;  // nobody timed the others
      published.fit(chip, best, row);
      sink(row);
    }
  }
}

}  // namespace nibble
