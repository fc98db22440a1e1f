#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <random>

#include "base/thread_pool.h"
#include "cases/timer.h"
#include "dispatch/ops.h"
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

BenchRow read_row(const Device& device) {
  // Twice what the caches keep, of which servers have hundreds of megabytes.
  const auto cache = static_cast<size_t>(std::max<long>(::sysconf(_SC_LEVEL3_CACHE_SIZE), 0));
  const size_t bytes = std::clamp(2 * cache, size_t{256} << 20, size_t{2} << 30);
  std::vector<uint8_t> memory(bytes, 1);
  const ThreadPool::Active active(device.pool());
  const cases::Times times = cases::time_one(device, cases::reading(memory.data(), bytes, device));
  BenchRow row = new_row("read", "plain_read", "GB/s", fmt::format("{} MiB", bytes >> 20));
  row.seconds = times.median;
  row.fastest = times.fastest;
  row.slowest = times.slowest;
  row.bytes = static_cast<double>(bytes);
  row.rate = row.bytes / row.seconds / 1e9;
  return row;
}

}  // namespace

void bench_model(const std::filesystem::path& dir, const Device& device,
                 const BenchModelOptions& options, const BenchSink& sink) {
  constexpr int64_t kPrefix = 16;
  double read_rate = 0;
  if (options.breakdown) {
    BenchRow read = read_row(device);
    read_rate = read.rate;
    sink(read);
  }
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
    if (row.op == "decode") {
      row.bytes = static_cast<double>(engine.matrix_bytes()) * static_cast<double>(tokens);
      if (read_rate > 0) row.share = row.bytes / row.seconds / 1e9 / read_rate;
    }
    sink(row);
  };
  const std::vector<int32_t> prompt = random_tokens(std::max(options.prompt, kPrefix));
  measure("prompt", options.prompt, [&] {
    engine.truncate(0);
    const double begin = now();
    engine.forward(prompt);
    return now() - begin;
  });
  // next(logits) says what comes next.
  const auto decode = [&](const auto& next) {
    engine.truncate(0);
    std::span<const float> logits = engine.forward(std::span(prompt).first(kPrefix));
    const double begin = now();
    for (int64_t i = 0; i < options.decode; ++i) {
      const int32_t token = next(logits);
      logits = engine.forward({&token, 1});
    }
    return now() - begin;
  };
  measure("decode", options.decode,
          [&] { return decode([&](std::span<const float>) { return random_tokens(1)[0]; }); });
  if (options.decode == 0 || !options.breakdown) return;

  OpSeconds seconds;
  // What the model draws, because the work of drawing depends on how sure it is.
  const double total = decode([&](std::span<const float> logits) {
    device.time_ops(&seconds);
    int32_t token = 0;
    sample({.desc = {.vocab = engine.vocab_size(), .temperature = 0.8f, .top_p = 0.95f},
            .logits = logits.data(),
            .uniform = static_cast<double>(random()) * 0x1p-32,
            .token = &token},
           device);
    return token;
  });
  device.time_ops(nullptr);
  double rest = total;
  for (const auto& [op, in_op] : seconds) rest -= in_op;
  seconds["rest"] = rest;  // the cache's copies, the loops around
  for (const auto& [op, in_op] : seconds) {
    BenchRow row = new_row("part", dir.string(), "% of decode", std::string(op));
    row.seconds = row.fastest = row.slowest = in_op / static_cast<double>(options.decode);
    row.rate = 100 * in_op / total;
    sink(row);
  }
}

}  // namespace nibble
