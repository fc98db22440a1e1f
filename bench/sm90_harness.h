// How the benchmarks of the sm_90 GEMMs run: arguments, the device, times, the JSON file.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/cuda.h"
#include "bench/arguments.h"
#include "bench/launch_graph.h"
#include "nibble/device.h"

namespace nibble::bench {

#define CUDA_OK(call)                                                                   \
  do {                                                                                  \
    if (const auto e = (call); static_cast<int>(e) != 0) {                              \
      std::fprintf(stderr, "%s:%d: %s: error %d\n", __FILE__, __LINE__, #call, int(e)); \
      std::exit(1);                                                                     \
    }                                                                                   \
  } while (false)

inline constexpr int kLaunches = 48;

using Shape = std::pair<int, int>;  // n, k
inline const std::vector<Shape> kLayers = {{7168, 2048},  {4096, 7168},  {8192, 8192},
                                           {28672, 4096}, {18432, 7168}, {7168, 18432}};

// "8192x8192,7168x2048"
inline std::vector<Shape> shapes_of(const char* list) {
  std::vector<Shape> all;
  for (const std::string& s : split(list)) {
    all.emplace_back(std::stoi(s), std::stoi(s.substr(s.find('x') + 1)));
  }
  return all;
}

inline DeviceInfo device_info() {
  const cuda::Properties found = cuda::properties(0);
  DeviceInfo info;
  info.kind = DeviceKind::kCuda;
  info.name = found.name;
  info.sm = found.sm;
  info.num_sms = found.num_sms;
  info.bandwidth_gbps = found.bandwidth_gbps;
  return info;
}

// As many as take a few milliseconds.
inline int launches_of(int m, int n, int k) {
  constexpr double kFlopsPerUs = 700e6, kGraphUs = 4000.0;
  const double us = 2.0 * m * n * k / kFlopsPerUs;
  return std::clamp(static_cast<int>(kGraphUs / std::max(us, 1.0)), 4, kLaunches);
}

// Where --json writes, "{" and what every run says; null without it.
inline FILE* open_json(const std::string& path, const std::string& device,
                       const std::string& note) {
  if (path.empty()) return nullptr;
  FILE* const file = std::fopen(path.c_str(), "w");
  if (file == nullptr) {
    std::fprintf(stderr, "%s: cannot be written\n", path.c_str());
    std::exit(1);
  }
  int driver = 0;
  CUDA_OK(cudaDriverGetVersion(&driver));
  std::fprintf(file, "{\"device\": \"%s\", \"cuda_driver\": %d, \"note\": \"%s\"", device.c_str(),
               driver, note.c_str());
  return file;
}
// Behind the last cell.
inline void close_json(FILE* file) {
  if (file == nullptr) return;
  std::fprintf(file, "\n]}\n");
  std::fclose(file);
}

inline cudaStream_t stream() {
  static cudaStream_t s = [] {
    cudaStream_t made;
    CUDA_OK(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking));
    return made;
  }();
  return s;
}

inline nibble::Stream nibble_stream(bool pdl) {
  return {.kind = DeviceKind::kCuda, .cuda = stream(), .pdl = pdl};
}

inline std::vector<double> medians_us(int launches,
                                      std::span<const std::function<void(int)>> contenders) {
  return medians_us(stream(), launches, contenders);
}
inline double median_us(int launches, const std::function<void(int)>& launch) {
  return medians_us(launches, {&launch, 1})[0];
}
inline double sustained_median_us(int launches, const std::function<void(int)>& launch) {
  return sustained_median_us(stream(), launches, launch);
}

}  // namespace nibble::bench
