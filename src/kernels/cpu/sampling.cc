#include "kernels/cpu/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
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
struct Taken {
  double weight;
  int32_t token;
};

// Memory that stays for the next token.
struct Scratch {
  std::vector<int32_t> found;
  std::vector<Candidate> heap;
  std::vector<Taken> taken;
};

// Candidates in order of probability, found a band of logits at a time: most draws end within the
// first one, which holds a few dozens of 49k. All of them in one heap take 0.5 ms, sorted 3 ms.
class InOrder {
 public:
  InOrder(const SamplingArgs& args, const SamplingLoops& loops, double top, Scratch& scratch)
      : args_(args), loops_(loops), top_(top), found_(scratch.found), heap_(scratch.heap) {
    found_.resize(static_cast<size_t>(args.desc.vocab));
    heap_.clear();
  }
  // False where none is left.
  bool next(Candidate& out) {
    while (heap_.empty()) {
      if (band_ == kBands) return false;
      find_band();
    }
    std::pop_heap(heap_.begin(), heap_.end());
    out = heap_.back();
    heap_.pop_back();
    return true;
  }

 private:
  // What is under e^-48 of the largest weight moves no sum of a million of them by a rounding.
  static constexpr int kBands = 6;
  static constexpr double kBandWidth = 8.0;  // in temperatures

  void find_band() {
    ++band_;
    const double width = kBandWidth * static_cast<double>(args_.desc.temperature);
    const float low = static_cast<float>(top_ - band_ * width);
    const int64_t count = loops_.find(args_.logits, args_.desc.vocab, low, high_, found_.data());
    high_ = low;
    for (int64_t i = 0; i < count; ++i) {
      const int32_t token = found_[static_cast<size_t>(i)];
      heap_.push_back({args_.logits[token], token});
    }
    std::make_heap(heap_.begin(), heap_.end());
  }

  const SamplingArgs& args_;
  const SamplingLoops& loops_;
  double top_;
  std::vector<int32_t>& found_;
  std::vector<Candidate>& heap_;
  int band_ = 0;
  float high_ = std::numeric_limits<float>::infinity();
};

}  // namespace

void draw(const SamplingArgs& args, const SamplingLoops& loops) {
  const SamplingDesc& d = args.desc;
  const int64_t best = loops.argmax(args.logits, d.vocab);
  *args.token = static_cast<int32_t>(best);
  if (d.temperature == 0) return;

  static thread_local Scratch scratch;
  std::vector<Taken>& taken = scratch.taken;
  taken.clear();
  const float top = args.logits[best];
  InOrder candidates(args, loops, top, scratch);
  const auto take = [&] {
    Candidate c;
    if (!candidates.next(c)) return false;
    const double x = (static_cast<double>(c.logit) - static_cast<double>(top)) / d.temperature;
    taken.push_back({std::exp(x), c.token});
    return true;
  };

  double total = 0;
  bool closed = d.top_k > 0 && d.top_k < d.vocab;  // nothing behind what is taken counts
  if (closed) {
    while (static_cast<int64_t>(taken.size()) < d.top_k && take()) total += taken.back().weight;
  } else {
    total = loops.exp_sum(args.logits, d.vocab, top, d.temperature);
  }
  double kept = total;
  if (d.top_p < 1.0f || d.min_p > 0.0f) {
    size_t count = 0;
    kept = 0;
    while (count == 0 || kept < static_cast<double>(d.top_p) * total) {
      if (count == taken.size() && (closed || !take())) break;
      if (taken[count].weight < static_cast<double>(d.min_p)) break;
      kept += taken[count++].weight;
    }
    taken.resize(count);
    closed = true;
  }
  double target = args.uniform * kept;
  for (size_t i = 0; target >= 0; ++i) {
    if (i == taken.size() && (closed || !take())) break;
    *args.token = taken[i].token;
    target -= taken[i].weight;
  }
}

namespace {

int64_t argmax(const float* x, int64_t n) { return std::max_element(x, x + n) - x; }

double exp_sum(const float* x, int64_t n, float top, float temperature) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (!std::isnan(x[i])) {
      sum += std::exp((static_cast<double>(x[i]) - static_cast<double>(top)) / temperature);
    }
  }
  return sum;
}

int64_t find(const float* x, int64_t n, float low, float high, int32_t* found) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (x[i] >= low && !(x[i] >= high)) found[count++] = static_cast<int32_t>(i);
  }
  return count;
}

void launch(const SamplingArgs& args, const KernelConfig&, Stream) {
  draw(args, {.argmax = argmax, .exp_sum = exp_sum, .find = find});
}

Support can_implement(const SamplingDesc&, const DeviceInfo& device) {
  return device.kind == DeviceKind::kCpu ? Support::yes() : Support::no("runs on a CPU only");
}

}  // namespace

const SamplingImpl kPortableSampling = {
    .name = "cpu_portable_sampling", .can_implement = can_implement, .launch = launch};

}  // namespace nibble::cpu
