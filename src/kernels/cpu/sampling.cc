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
  // A heap instead of a sort: most draws look at a few candidates only, and 49k logits take 0.2 ms
  // to build into a heap against 3 ms to sort.
  std::vector<Candidate> heap(d.vocab);
  for (int64_t i = 0; i < d.vocab; ++i) heap[i] = {args.logits[i], static_cast<int32_t>(i)};
  const int64_t top_k = d.top_k > 0 ? std::min(d.top_k, d.vocab) : d.vocab;
  if (top_k < d.vocab) {
    std::nth_element(heap.begin(), heap.begin() + top_k, heap.end(),
                     [](const Candidate& a, const Candidate& b) { return b < a; });
    heap.resize(top_k);
  }
  double total = 0;  // of what top_k left
  double kept = 0;   // of those that min_p leaves as well
  for (const Candidate& c : heap) {
    const double w = weight(c.logit);
    total += w;
    if (w >= static_cast<double>(d.min_p)) kept += w;
  }
  std::make_heap(heap.begin(), heap.end());
  const auto pop = [&] {
    const Candidate c = heap.front();
    std::pop_heap(heap.begin(), heap.end());
    heap.pop_back();
    return c;
  };

  // Candidates in order of probability. top_p must see where it cuts before the draw; without it
  // the draw itself says how far to look.
  std::vector<Candidate> nucleus;
  if (d.top_p < 1.0f) {
    double sum = 0;
    while (!heap.empty() && (nucleus.empty() || sum < static_cast<double>(d.top_p) * total) &&
           sum < kept) {
      nucleus.push_back(pop());
      sum += weight(nucleus.back().logit);
    }
    kept = std::min(kept, sum);
  }
  double target = args.uniform * kept;
  size_t next = 0;
  while (target >= 0 && (next < nucleus.size() || (nucleus.empty() && !heap.empty()))) {
    const Candidate c = nucleus.empty() ? pop() : nucleus[next++];
    *args.token = c.token;
    target -= weight(c.logit);
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
