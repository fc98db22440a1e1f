#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <random>

#include "nibble/bench.h"

namespace nibble {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

BenchRow new_row(std::string_view op, std::string_view impl, std::string_view unit,
                 std::string desc = {}) {
  BenchRow row;
  row.op = op;
  row.impl = impl;
  row.unit = unit;
  row.desc = std::move(desc);
  return row;
}

}  // namespace

void bench_model(const std::filesystem::path& dir, const Device& device,
                 const BenchModelOptions& options, const BenchSink& sink) {
  constexpr int64_t kPrefix = 16;
  BenchRow load = new_row("load", dir.string(), "s");
  const double start = now();
  Engine engine = Engine::load(dir, device, options.engine);
  load.seconds = load.fastest = load.slowest = load.rate = now() - start;
  sink(load);

  std::mt19937 random(1);
  const auto random_tokens = [&](int64_t count) {
    std::vector<int32_t> tokens(count);
    for (int32_t& t : tokens) t = static_cast<int32_t>(random() % engine.vocab_size());
    return tokens;
  };
  const auto measure = [&](const char* op, int64_t tokens, const auto& run) {
    if (tokens == 0) return;
    BenchRow row = new_row(op, dir.string(), "tokens/s", fmt::format("{} tokens", tokens));
    std::vector<double> seconds;
    for (int i = 0; i < options.repeats; ++i) seconds.push_back(run());
    std::sort(seconds.begin(), seconds.end());
    row.seconds = seconds[seconds.size() / 2];
    row.fastest = seconds.front();
    row.slowest = seconds.back();
    row.rate = static_cast<double>(tokens) / row.seconds;
    sink(row);
  };
  const std::vector<int32_t> prompt = random_tokens(std::max(options.prompt, kPrefix));
  measure("prompt", options.prompt, [&] {
    engine.truncate(0);
    const double begin = now();
    engine.forward(prompt);
    return now() - begin;
  });
  measure("decode", options.decode, [&] {
    engine.truncate(0);
    engine.forward(std::span(prompt).first(kPrefix));
    const double begin = now();
    for (int64_t i = 0; i < options.decode; ++i) engine.forward(random_tokens(1));
    return now() - begin;
  });
}

}  // namespace nibble
