// Choosing an implementation: forced, else tuned on this device, else the lowest estimate, else the
// first in order.
#pragma once

#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/log.h"
#include "dispatch/tables.h"
#include "dispatch/tuning.h"
#include "nibble/gemm.h"

namespace nibble {

template <class Impl>
struct Selection {
  const Impl* impl = nullptr;
  KernelConfig config;
  double estimate_us = 0.0;
  int considered = 0;  // candidates that were compared; 0 where order decided
  bool forced = false;
  double tuned_us = 0.0, model_us = 0.0;  // both 0 unless tuned: see TunedChoice
};

// "ref_gemm: k must be ..." for every entry that refuses.
template <class Impl>
std::vector<std::string> refusals(const typename Impl::Desc& desc, const Device& device) {
  std::vector<std::string> all;
  for (const Impl& impl : impls<Impl>()) {
    if (const Support s = impl.can_implement(desc, device.info()); !s) {
      all.push_back(fmt::format("{}: {}", impl.name, s.reason));
    }
  }
  return all;
}

// At least one. Valid until the thread's next call for this implementation.
template <class Impl>
std::span<const KernelConfig> candidates_of(const Impl& impl, const typename Impl::Desc& desc,
                                            const DeviceInfo& device) {
  static constexpr KernelConfig kDefault[1] = {};
  return impl.candidates ? impl.candidates(desc, device) : std::span<const KernelConfig>(kDefault);
}

// The candidate with the lowest estimate of one implementation.
template <class Impl>
void best_config(const Impl& impl, const typename Impl::Desc& desc, const DeviceInfo& device,
                 Selection<Impl>& best) {
  for (const KernelConfig& config : candidates_of(impl, desc, device)) {
    const double estimate = impl.estimate_us(desc, config, device);
    ++best.considered;
    if (best.impl == nullptr || estimate < best.estimate_us) {
      best.impl = &impl;
      best.config = config;
      best.estimate_us = estimate;
    }
  }
}

// What `nibble tune` found, where that is still a candidate; false where it found nothing.
template <class Impl>
bool select_tuned(const typename Impl::Desc& desc, const Device& device, Selection<Impl>& best) {
  if (device.tuning() == nullptr) return false;
  const TunedChoice* tuned = device.tuning()->find(kOpName<Impl>, to_string(desc));
  if (tuned == nullptr || !tuned->pays()) return false;
  for (const Impl& impl : impls<Impl>()) {
    if (impl.name != tuned->impl || !impl.can_implement(desc, device.info())) continue;
    for (const KernelConfig& config : candidates_of(impl, desc, device.info())) {
      if (config != tuned->config) continue;
      best = {.impl = &impl, .config = config};
      best.tuned_us = tuned->us;
      best.model_us = tuned->model_us;
      return true;
    }
  }
  return false;
}

// By estimate and order, among implementations of that name where one is given; without impl where
// none takes desc.
template <class Impl>
Selection<Impl> select_by_model(const typename Impl::Desc& desc, const Device& device,
                                std::string_view name = {}) {
  Selection<Impl> best;
  for (const Impl& impl : impls<Impl>()) {
    if (!name.empty() && impl.name != name) continue;
    if (!impl.can_implement(desc, device.info())) continue;
    if (impl.estimate_us) {
      best_config(impl, desc, device.info(), best);
    } else if (best.impl == nullptr) {
      best.impl = &impl;
      best.config = candidates_of(impl, desc, device.info())[0];
    }
    // What has no estimate competes by order alone: it takes over only where nothing stands above
    // it.
    if (best.impl != nullptr && !best.impl->estimate_us) break;
  }
  return best;
}

// Without impl where nothing (or not the forced one) takes desc.
template <class Impl>
Selection<Impl> try_select(const typename Impl::Desc& desc, const Device& device) {
  const std::string_view forced = device.forced_impl(kOpName<Impl>);
  Selection<Impl> best;
  if (forced.empty() && select_tuned(desc, device, best)) return best;
  best = select_by_model<Impl>(desc, device, forced);
  best.forced = !forced.empty();
  return best;
}

// Throws kUnsupported, listing every refusal, where nothing (or not the forced one) takes desc.
template <class Impl>
Selection<Impl> select(const typename Impl::Desc& desc, const Device& device) {
  constexpr std::string_view op = kOpName<Impl>;
  const Selection<Impl> best = try_select<Impl>(desc, device);
  if (best.impl == nullptr) {
    const std::string_view forced = device.forced_impl(op);
    std::string reasons;
    for (const std::string& r : refusals<Impl>(desc, device)) reasons += "\n  " + r;
    fail(ErrorCode::kUnsupported, "{}: {} {} on {}:{}", op, to_string(desc),
         best.forced ? fmt::format("is refused by {}, which NIBBLE_FORCE_IMPL names,", forced)
                     : "has no implementation",
         device.info().name, reasons);
  }
  return best;
}

template <class Impl>
KernelChoice describe(const typename Impl::Desc& desc, const Selection<Impl>& selection,
                      const Device& device) {
  KernelChoice choice{
      std::string(kOpName<Impl>),  to_string(desc),  std::string(selection.impl->name),
      to_string(selection.config), "first in order", refusals<Impl>(desc, device)};
  if (selection.forced) {
    choice.reason = "forced by NIBBLE_FORCE_IMPL";
  } else if (selection.tuned_us > 0) {
    choice.reason = fmt::format("tuned on this device: {:.1f} us, by the cost model {:.1f}",
                                selection.tuned_us, selection.model_us);
  } else if (selection.considered > 0) {
    choice.reason = fmt::format("lowest estimate, {:.1f} us, of {}", selection.estimate_us,
                                selection.considered);
  }
  return choice;
}

// One line per choice to the log, at kTrace.
template <class Impl>
void trace(const typename Impl::Desc& desc, const Selection<Impl>& selection,
           const Device& device) {
  if (!log_enabled()) return;
  const KernelChoice c = describe(desc, selection, device);
  log(LogLevel::kTrace, "{} {}: {} [{}] ({}){}{}", c.op, c.desc, c.impl, c.config, c.reason,
      c.refusals.empty() ? "" : "; refused: ", fmt::join(c.refusals, "; "));
}

}  // namespace nibble
