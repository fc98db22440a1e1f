// The sm_90 GEMMs against a streaming read of the same bytes and cuBLAS bf16, on one card:
//   bench_sm90_gemm [--json FILE] [--m 1,16] [--shape 8192x8192,...] [--impl TEXT] [--top COUNT]
//                   [--sustained] [--note TEXT]
//   bench_sm90_gemm --check [--impl TEXT] [--m ...] [--shape ...]
// CUDA graphs of up to 48 launches, weights rotated past L2, medians of 7 turns of all that is
// compared with cuBLAS, for which the card has rested; --sustained adds times of the chosen one and
// of cuBLAS in a row, alone, after a quarter of a second of it; --top times that many of the best
// candidates of each implementation, by estimate; --impl takes only those whose name and
// configuration hold every text of a list, such as wgmma,tile_m=32. Each configuration's output is
// compared with an fp64 sum over every token and a sample of rows. --check does so for every
// candidate, every type of output, with and without C and programmatic dependent launch.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "bench/sm90_gemm_problem.h"
#include "bench/sm90_harness.h"
#include "kernels/sm90/gemm.h"

using namespace nibble;
using namespace nibble::bench;
using namespace nibble::sm90;

namespace {

struct Options {
  std::vector<int> m = {1, 4, 8, 16, 32, 64};
  std::vector<Shape> shapes = kLayers;
  std::string json, note;
  std::vector<std::string> impl;
  bool check = false, sustained = false;
  int top = 0;
};

constexpr const GemmImpl* kImpls[] = {&kDecodeGemm, &kWgmmaGemm};

// One call of the table's entry.
struct Call {
  PreparedWeight weight;
  GemmArgs args;

  Call(const Problem& p, const uint8_t* packed) {
    weight.format = WeightFormat::kNvfp4;
    weight.n = p.layer.n;
    weight.k = p.layer.k;
    weight.layout = WeightLayout::kSm90;
    weight.codes = packed;
    weight.row_alpha = p.layer.row_alpha.p;
    args.desc = {.m = p.m,
                 .n = p.layer.n,
                 .k = p.layer.k,
                 .weight = WeightFormat::kNvfp4,
                 .layout = WeightLayout::kSm90,
                 .activation = ActivationMode::k16Bit,
                 .a_type = DType::kBF16,
                 .d_type = p.type,
                 .has_c = p.has_c};
    args.a = {p.a.p, DType::kBF16, p.m, p.layer.k, p.layer.k};
    args.d = {p.d.p, p.type, p.m, p.layer.n, p.d_stride};
    if (p.has_c) args.c = {p.c.p, p.type, p.m, p.layer.n, p.d_stride};
  }
};
constexpr size_t kWorkspaceBytes = size_t{64} << 20;
void run_once(const GemmImpl& impl, const Problem& p, const uint8_t* packed,
              const KernelConfig& config, bool pdl) {
  static const Memory<uint8_t> workspace(kWorkspaceBytes);
  static const auto poisoned = cudaMemset(workspace.p, 0xFF, kWorkspaceBytes);
  CUDA_OK(poisoned);
  Call call(p, packed);
  call.args.b = &call.weight;
  call.args.workspace = workspace.p;
  impl.launch(call.args, config, nibble_stream(pdl));
}

// The candidates of an implementation, or of all, the best first.
struct Candidate {
  const GemmImpl* impl;
  KernelConfig config;
  double estimate;
};
std::string describe(const Candidate& c) {
  return std::string(c.impl->name) + " " + to_string(c.config);
}

std::vector<Candidate> candidates_of(const Problem& p, const std::vector<std::string>& texts,
                                     const DeviceInfo& info) {
  const GemmDesc desc = Call(p, nullptr).args.desc;
  std::vector<Candidate> all;
  for (const GemmImpl* impl : kImpls) {
    if (!impl->can_implement(desc, info)) continue;
    for (const KernelConfig& config : impl->candidates(desc, info)) {
      const Candidate c = {impl, config, impl->estimate_us(desc, config, info)};
      const std::string name = describe(c) + " ";
      if (std::ranges::all_of(texts, [&](const std::string& text) {
            return name.find(text) != std::string::npos;
          })) {
        all.push_back(c);
      }
    }
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const Candidate& x, const Candidate& y) { return x.estimate < y.estimate; });
  return all;
}

constexpr double kHopeless = 2.5;  // times the best estimate: not timed

constexpr double kMaxError = 3e-3;  // bf16 output rounds at 1.7e-3

struct Check {
  DType type;
  bool has_c;
  int padding;  // elements between rows of the output
  bool pdl;
};
constexpr Check kChecks[] = {{DType::kBF16, false, 0, false},
                             {DType::kBF16, true, 8, true},
                             {DType::kF32, true, 3, false},
                             {DType::kF16, true, 0, false}};

int check_all(const Options& options, const DeviceInfo& info) {
  int failures = 0, count = 0;
  double worst = 0.0;
  for (const auto& [n, k] : options.shapes) {
    const Layer layer(n, k, false);
    for (const int m : options.m) {
      for (const Check& what : kChecks) {
        const Problem p(layer, m, what.type, what.has_c, what.padding);
        for (const Candidate& c : candidates_of(p, options.impl, info)) {
          const double e =
              p.check([&](int) { run_once(*c.impl, p, layer.packed.p, c.config, what.pdl); });
          ++count;
          worst = std::max(worst, e);
          if (e < kMaxError) continue;
          if (++failures < 30) {
            std::printf("BAD n=%d k=%d m=%d %s c=%d %s pdl=%d: %g\n", n, k, m,
                        std::string(to_string(what.type)).c_str(), what.has_c, describe(c).c_str(),
                        what.pdl, e);
          }
        }
      }
    }
    std::printf("%dx%d done\n", n, k);
    std::fflush(stdout);
  }
  std::printf("check: %d launches, %d wrong, worst error %.2e\n", count, failures, worst);
  return failures != 0;
}

// The shapes of --check where none are given: n and k that no tile divides, little and much of k,
// more tiles than a card has multiprocessors.
constexpr std::pair<int, int> kCheckShapes[] = {{16, 16},    {128, 256},  {37, 208},
                                                {200, 1040}, {576, 640},  {1000, 48},
                                                {49, 4112},  {4136, 400}, {520, 320}};

void run(const Options& options, const DeviceInfo& info) {
  FILE* json = open_json(options.json, info.name, options.note);
  const double null_us = median_us(kLaunches, [&](int) { launch_nothing(stream()); });
  std::printf("%s, null kernel %.2f us\n", info.name.c_str(), null_us);
  if (json) std::fprintf(json, ", \"null_us\": %.3f,\n\"cells\": [", null_us);
  const char* separator = "\n";
  std::vector<double> ratios(options.m.size(), 0.0), best_ratios(options.m.size(), 0.0);
  for (const auto& shape : options.shapes) {
    const int n = shape.first, k = shape.second;
    const Layer layer(n, k, true);
    const CublasLayer by_cublas(layer, false);
    Memory<uint8_t> sink(16);
    double floor = 1e9;
    for (int grid : {528, 1056}) {
      floor = std::min(floor, median_us(kLaunches, [&](int i) {
                         launch_stream_read(layer.copy(i), layer.bytes - kTailBytes, sink.p, grid,
                                            stream());
                       }));
    }
    std::printf("== %dx%d floor %.2f us\n", n, k, floor);
    for (size_t mi = 0; mi < options.m.size(); ++mi) {
      const int m = options.m[mi];
      const Problem p(layer, m);
      const int launches = launches_of(m, n, k);
      const std::vector<Candidate> all = candidates_of(p, options.impl, info);
      if (all.empty()) continue;
      const Candidate& chosen = all[0];
      const auto checked = [&](const Candidate& c) {
        return p.check([&](int i) { run_once(*c.impl, p, layer.copy(i), c.config, false); });
      };
      const double error = checked(chosen);

      // cuBLAS, the chosen one with programmatic dependent launch, then the candidates.
      std::vector<Candidate> timed = {chosen};
      for (const GemmImpl* impl : kImpls) {
        int left = options.top;
        for (const Candidate& c : all) {
          if (c.impl != impl || c.estimate > kHopeless * chosen.estimate || left-- <= 0) continue;
          if (&c != &chosen) timed.push_back(c);
        }
      }
      const auto launch_of = [&](const Candidate& c, bool pdl) {
        return [&p, &layer, c, pdl](int i) { run_once(*c.impl, p, layer.copy(i), c.config, pdl); };
      };
      std::vector<std::function<void(int)>> contenders;
      contenders.emplace_back([&](int i) { by_cublas.multiply(i, p.a.p, m, p.d.p); });
      contenders.emplace_back(launch_of(chosen, true));
      for (const Candidate& c : timed) contenders.emplace_back(launch_of(c, false));
      const std::vector<double> times = medians_us(launches, contenders);
      const double cublas_us = times[0], pdl_us = times[1], us = times[2];

      double best = us;
      Candidate best_candidate = chosen;
      std::string list;
      for (size_t i = 0; i < timed.size(); ++i) {
        const Candidate& c = timed[i];
        const double t = times[2 + i];
        list += (list.empty() ? "" : ", ") + std::string("[\"") + describe(c) + "\", " +
                std::to_string(t) + ", " + std::to_string(c.estimate) + ", " +
                (checked(c) < kMaxError ? "true" : "false") + "]";
        if (t < best) {
          best = t;
          best_candidate = c;
        }
      }
      ratios[mi] += std::log(us / floor) / static_cast<double>(options.shapes.size());
      best_ratios[mi] += std::log(best / floor) / static_cast<double>(options.shapes.size());
      std::printf(
          "m=%-3d cublas %.2f | %.2f (%.2f of floor), pdl %.2f, estimate %.2f [%s] error %.1e | "
          "best of %zu %.2f [%s]\n",
          m, cublas_us, us, us / floor, pdl_us, chosen.estimate, describe(chosen).c_str(), error,
          all.size(), best, describe(best_candidate).c_str());
      double sustained_us = 0.0, sustained_cublas_us = 0.0;
      if (options.sustained) {
        sustained_us = sustained_median_us(launches, contenders[2]);
        sustained_cublas_us = sustained_median_us(launches, contenders[0]);
        std::printf("sustained cublas %.2f | %.2f (%.2f of floor)\n", sustained_cublas_us,
                    sustained_us, sustained_us / floor);
      }
      std::fflush(stdout);
      if (json) {
        std::fprintf(
            json,
            "%s{\"n\": %d, \"k\": %d, \"m\": %d, \"floor_us\": %.3f, \"cublas_bf16_us\": %.3f, "
            "\"us\": %.3f, \"pdl_us\": %.3f, \"estimate_us\": %.3f, \"error\": %.2e, "
            "\"config\": \"%s\", \"best_us\": %.3f, \"best_config\": \"%s\"",
            separator, n, k, m, floor, cublas_us, us, pdl_us, chosen.estimate, error,
            describe(chosen).c_str(), best, describe(best_candidate).c_str());
        if (options.sustained) {
          std::fprintf(json, ", \"sustained_us\": %.3f, \"sustained_cublas_us\": %.3f",
                       sustained_us, sustained_cublas_us);
        }
        std::fprintf(json, ", \"timed\": [%s]", list.c_str());
        std::fprintf(json, "}");
        std::fflush(json);
        separator = ",\n";
      }
    }
  }
  for (size_t mi = 0; mi < options.m.size(); ++mi) {
    std::printf("m=%d: geometric mean of time / floor %.3f (best candidates %.3f)\n", options.m[mi],
                std::exp(ratios[mi]), std::exp(best_ratios[mi]));
  }
  close_json(json);
}

}  // namespace

int main(int argc, char** argv) try {
  Options options;
  bool shapes_given = false;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--check") {
      options.check = true;
    } else if (arg == "--sustained") {
      options.sustained = true;
    } else if (arg == "--impl" && i + 1 < argc) {
      options.impl = split(argv[++i]);
    } else if (arg == "--top" && i + 1 < argc) {
      options.top = std::stoi(argv[++i]);
    } else if (arg == "--note" && i + 1 < argc) {
      options.note = argv[++i];
    } else if (arg == "--json" && i + 1 < argc) {
      options.json = argv[++i];
    } else if (arg == "--m" && i + 1 < argc) {
      options.m = numbers_of(argv[++i]);
    } else if (arg == "--shape" && i + 1 < argc) {
      shapes_given = true;
      options.shapes = shapes_of(argv[++i]);
    } else {
      std::fprintf(stderr, "unknown argument %s\n", argv[i]);
      return 2;
    }
  }
  if (options.check && !shapes_given) {
    options.shapes.assign(std::begin(kCheckShapes), std::end(kCheckShapes));
  }
  const DeviceInfo info = device_info();
  if (options.check) return check_all(options, info);
  run(options, info);
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
