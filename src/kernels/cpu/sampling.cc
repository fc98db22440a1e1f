#include "kernels/cpu/sampling.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace nibble::cpu {
namespace {

struct Candidate {
  float logit;
  int32_t token;
  // Heap order: the largest logit on top, the lowest index first among equals.
  bool operator<(const Candidate& other) const {
    return logit != other.logit ? logit < other.logit : token > other.token;
  }
};

int32_t largest(const float* logits, int64_t vocab) {
  return static_cast<int32_t>(std::max_element(logits, logits + vocab) - logits);
}

}  // namespace

void draw(const SamplingArgs& args, int32_t best) {
  const SamplingDesc& d = args.desc;
  *args.token = best;
  if (d.temperature == 0) return;

  const double top = args.logits[best];
  const auto weight = [&](float logit) { return std::exp((logit - top) / d.temperature); };
  // What is under e^-46 of the largest weight moves no sum of a million of them by a rounding.
  constexpr double kNegligible = 46.0;
  const double lowest = top - kNegligible * static_cast<double>(d.temperature);
  // A heap instead of a sort: most draws look at a few candidates only, and 49k logits take 0.2 ms
  // to build into a heap against 3 ms to sort. Its memory stays for the next token.
  static thread_local std::vector<Candidate> heap;
  heap.clear();
  for (int64_t i = 0; i < d.vocab; ++i) {
    if (args.logits[i] >= lowest) heap.push_back({args.logits[i], static_cast<int32_t>(i)});
  }
  if (d.top_k > 0 && d.top_k < static_cast<int64_t>(heap.size())) {
    std::nth_element(heap.begin(), heap.begin() + d.top_k, heap.end(),
                     [](const Candidate& a, const Candidate& b) { return b < a; });
    heap.resize(static_cast<size_t>(d.top_k));
  }
  double total = 0;  // of what top_k left
  double kept = 0;   // of those that min_p leaves as well
  for (const Candidate& c : heap) {
    const double w = weight(c.logit);
    total += w;
    if (w >= static_cast<double>(d.min_p)) kept += w;
  }
  std::make_heap(heap.begin(), heap.end());
  // Candidates move from the heap to the memory behind it in order of probability.
  auto end = heap.end();
  const auto pop = [&] {
    std::pop_heap(heap.begin(), end);
    return *--end;
  };

  // top_p must see where it cuts before the draw; without it the draw itself says how far to look.
  if (d.top_p < 1.0f) {
    double sum = 0;
    while (end != heap.begin() && (sum == 0 || sum < static_cast<double>(d.top_p) * total) &&
           sum < kept) {
      sum += weight(pop().logit);
    }
    kept = std::min(kept, sum);
  }
  double target = args.uniform * kept;
  for (auto next = heap.end(); target >= 0; target -= weight(next->logit)) {
    if (next == end) {
      if (d.top_p < 1.0f || end == heap.begin()) break;
      pop();
    }
    --next;
    *args.token = next->token;
  }
}

namespace {

void launch(const SamplingArgs& args, const KernelConfig&, Stream) {
  draw(args, largest(args.logits, args.desc.vocab));
}

Support can_implement(const SamplingDesc&, const DeviceInfo& device) {
  return device.kind == DeviceKind::kCpu ? Support::yes() : Support::no("runs on a CPU only");
}

}  // namespace

const SamplingImpl kPortableSampling = {
    .name = "cpu_portable_sampling", .can_implement = can_implement, .launch = launch};

}  // namespace nibble::cpu
