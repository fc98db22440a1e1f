#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>

#include "base/check.h"
#include "dispatch/cost_model.h"
#include "dispatch/timing_table.h"
#include "nibble/bench.h"

namespace nibble {
namespace {

constexpr double kLargeRegret = 0.05;

std::vector<Timing> read_all(const std::vector<std::filesystem::path>& paths) {
  NIBBLE_CHECK(!paths.empty(), ErrorCode::kInvalidArgument,
               "expected a table to fit the cost model to, found none");
  std::vector<Timing> all;
  for (const std::filesystem::path& path : paths) {
    std::vector<Timing> part = read_timings(path);
    all.insert(all.end(), std::make_move_iterator(part.begin()),
               std::make_move_iterator(part.end()));
  }
  check_unique(all);
  return all;
}

std::set<std::string> backends_of(const std::vector<Timing>& timings) {
  std::set<std::string> names;
  for (const Timing& t : timings) names.insert(t.backend);
  return names;
}

// Drops what options.backends leaves out, and refuses what the fit has never seen.
void keep_candidates(const ReplayOptions& options, const std::vector<Timing>& fit,
                     std::vector<Timing>& on) {
  const std::set<std::string> known = backends_of(fit);
  const std::set<std::string> there = backends_of(on);
  const bool common =
      std::any_of(there.begin(), there.end(), [&](const auto& b) { return known.contains(b); });
  NIBBLE_CHECK(common, ErrorCode::kInvalidArgument,
               "{}: expected a backend that the fit knows ({}), found none of them but {}",
               options.on.string(), fmt::join(known, ", "), fmt::join(there, ", "));
  const std::set<std::string> wanted(options.backends.begin(), options.backends.end());
  for (const std::string& name : wanted) {
    NIBBLE_CHECK(there.contains(name), ErrorCode::kInvalidArgument,
                 "{}: expected timings of backend '{}', found only {}", options.on.string(), name,
                 fmt::join(there, ", "));
  }
  if (!wanted.empty()) {
    std::erase_if(on, [&](const Timing& t) { return !wanted.contains(t.backend); });
  }
  for (const Timing& t : on) {
    NIBBLE_CHECK(known.contains(t.backend), ErrorCode::kInvalidArgument,
                 "{}: expected a backend that the fit knows ({}), found '{}'", t.where,
                 fmt::join(known, ", "), t.backend);
  }
}

std::vector<Timing> without(const std::vector<Timing>& timings, const Timing& left_out) {
  std::vector<Timing> rest;
  for (const Timing& t : timings) {
    if (t.device == left_out.device && t.n == left_out.n && t.k == left_out.k) continue;
    rest.push_back(t);
  }
  return rest;
}

// The timings in cells, in the order of the sizes, with the model's estimates.
std::vector<ReplayCell> cells_of(const std::vector<const Timing*>& timings,
                                 const CostModel& model) {
  std::map<std::tuple<int64_t, int64_t, int64_t>, ReplayCell> cells;
  for (const Timing* t : timings) {
    ReplayCell& cell = cells[{t->n, t->k, t->m}];
    cell.device = t->device;
    cell.source = model.source();
    cell.n = t->n;
    cell.k = t->k;
    cell.m = t->m;
    cell.candidates.push_back(
        {t->backend, t->us(), model.estimate_us(t->kernel, t->m, t->n, t->k)});
  }
  std::vector<ReplayCell> list;
  for (auto& [key, cell] : cells) {
    std::sort(cell.candidates.begin(), cell.candidates.end(),
              [](const auto& a, const auto& b) { return a.backend < b.backend; });
    list.push_back(std::move(cell));
  }
  return list;
}

template <class Member>
size_t fastest(const ReplayCell& cell, Member member) {
  const auto least =
      std::min_element(cell.candidates.begin(), cell.candidates.end(),
                       [&](const auto& a, const auto& b) { return a.*member < b.*member; });
  return static_cast<size_t>(least - cell.candidates.begin());
}

// Chooses in the cells of `timings`, which are of one device.
void judge(const std::vector<Timing>& fit, const std::vector<const Timing*>& timings,
           std::vector<ReplayCell>& judged) {
  std::set<std::string> names;
  for (const Timing* t : timings) names.insert(t->backend);
  const std::vector<std::string> backends(names.begin(), names.end());
  const CostModel model(fit, timings[0]->device, backends);
  for (ReplayCell& cell : cells_of(timings, model)) {
    cell.best = fastest(cell, &ReplayCell::Candidate::measured_us);
    cell.picked = fastest(cell, &ReplayCell::Candidate::estimated_us);
    judged.push_back(std::move(cell));
  }
}

std::vector<ReplayReport::Always> always(const std::vector<ReplayCell>& cells) {
  std::map<std::string, size_t> count;
  for (const ReplayCell& cell : cells) {
    for (const ReplayCell::Candidate& c : cell.candidates) ++count[c.backend];
  }
  std::vector<ReplayReport::Always> all;
  for (const auto& [name, times] : count) {
    if (times != cells.size()) continue;
    const auto choose = [&backend = name](const ReplayCell& cell) {
      const auto at = std::find_if(cell.candidates.begin(), cell.candidates.end(),
                                   [&](const auto& c) { return c.backend == backend; });
      return static_cast<size_t>(at - cell.candidates.begin());
    };
    all.push_back({name, replay_regret(cells, choose)});
  }
  return all;
}

}  // namespace

double ReplayCell::regret(size_t candidate) const {
  return 1 - candidates[best].measured_us / candidates[candidate].measured_us;
}

ReplayRegret replay_regret(const std::vector<ReplayCell>& cells,
                           const std::function<size_t(const ReplayCell&)>& choose) {
  NIBBLE_CHECK(!cells.empty(), ErrorCode::kInvalidArgument,
               "expected cells to take the regret over, found none");
  ReplayRegret total;
  double logs = 0;
  for (const ReplayCell& cell : cells) {
    const double regret = cell.regret(choose(cell));
    logs += std::log1p(-regret);
    total.worst = std::max(total.worst, regret);
    total.over_5pct += regret > kLargeRegret;
    total.picked_best += regret == 0;
  }
  total.geomean = -std::expm1(logs / static_cast<double>(cells.size()));
  return total;
}

ReplayReport replay(const ReplayOptions& options) {
  const std::vector<Timing> fit = read_all(options.fit);
  std::vector<Timing> on = read_timings(options.on);
  keep_candidates(options, fit, on);
  // What is judged by one fit: a device, or one shape of it.
  using Part = std::tuple<std::string, int64_t, int64_t>;
  std::map<Part, std::vector<const Timing*>> parts;
  for (const Timing& t : on) {
    parts[options.leave_out_shapes ? Part{t.device, t.n, t.k} : Part{t.device, 0, 0}].push_back(&t);
  }
  ReplayReport report;
  for (const auto& [part, timings] : parts) {
    if (!options.leave_out_shapes) {
      judge(fit, timings, report.cells);
      continue;
    }
    const std::vector<Timing> rest = without(fit, *timings[0]);
    const std::set<std::string> known = backends_of(rest);
    for (const Timing* t : timings) {
      NIBBLE_CHECK(known.contains(t->backend), ErrorCode::kInvalidArgument,
                   "{}: with n={} k={} left out, expected a backend that the fit knows ({}), "
                   "found '{}'",
                   t->where, t->n, t->k, fmt::join(known, ", "), t->backend);
    }
    judge(rest, timings, report.cells);
  }
  report.regret = replay_regret(report.cells, [](const ReplayCell& c) { return c.picked; });
  report.always = always(report.cells);
  return report;
}

}  // namespace nibble
