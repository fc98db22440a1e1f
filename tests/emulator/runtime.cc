#include "tests/emulator/runtime.h"

#include <malloc.h>

#include <cstdio>
#include <cstdlib>

namespace nibble::emulator {
namespace {

cudaError_t start(const Launch& launch) {
  try {
    run(launch);
    return cudaSuccess;
  } catch (const Fault& e) {
    std::fprintf(stderr, "emulator: %s\n", e.what());
    runtime().broken = true;
    return runtime().last = cudaErrorLaunchFailure;
  }
}

cudaError_t play(const Graph& graph) {
  for (const Node& node : graph.nodes) {
    if (node.other) {
      node.other();
    } else if (const cudaError_t status = start(node.launch); status != cudaSuccess) {
      return status;
    }
  }
  return cudaSuccess;
}

}  // namespace

const Chip& chip() {
  static const Chip one = [] {
    constexpr Chip kChips[] = {{90, 132, 227 << 10}, {80, 108, 163 << 10}, {120, 188, 99 << 10}};
    const char *sm = std::getenv("NIBBLE_EMULATED_SM"), *sms = std::getenv("NIBBLE_EMULATED_SMS");
    Chip found = kChips[0];
    for (const Chip& c : kChips) {
      if (sm != nullptr && c.sm == std::atoi(sm)) found = c;
    }
    if (sms != nullptr) found.num_sms = std::atoi(sms);
    return found;
  }();
  return one;
}

Runtime& runtime() {
  static auto& one = *[] {
    // Memory goes from kernel to kernel: given back each time, it took a third of the time.
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    return new Runtime;
  }();
  return one;
}

cudaError_t keep(cudaError_t status) {
  if (status != cudaSuccess) runtime().last = status;
  return status;
}

std::string ptx_of(const uint8_t* fat) {
  const auto read = [&]<class T>(size_t at, T) {
    T value;
    std::memcpy(&value, fat + at, sizeof value);
    return value;
  };
  constexpr uint32_t kMagic = 0xBA55ED50;
  constexpr uint16_t kPtx = 1;
  if (read(0, uint32_t{}) != kMagic) throw Fault("not a fat binary");
  size_t at = read(6, uint16_t{});
  const size_t end = at + read(8, uint64_t{});
  while (at < end) {
    const size_t head = read(at + 4, uint32_t{}), bytes = read(at + 8, uint64_t{});
    if (read(at, uint16_t{}) == kPtx) {
      const char* text = reinterpret_cast<const char*>(fat + at + head);
      const std::string_view ptx(text, strnlen(text, bytes));
      const std::string target = ".target sm_" + std::to_string(chip().sm);
      const size_t found = ptx.find(target);
      if (found != ptx.npos &&
          ptx.find_first_of("0123456789", found + target.size()) != found + target.size()) {
        return std::string(ptx);
      }
    }
    at += head + bytes;
  }
  return "";
}

Launch make_launch(const void* kernel, dim3 grid, dim3 block, size_t shared, dim3 cluster,
                   void** arguments) {
  const Kernel& k = runtime().kernels.at(kernel);
  const Function& f = k.module->kernel(k.name);
  Launch launch = {&f,
                   {grid.x, grid.y, grid.z},
                   {block.x, block.y, block.z},
                   {cluster.x, cluster.y, cluster.z},
                   shared,
                   std::vector<uint8_t>(f.parameter_bytes)};
  for (size_t i = 0; i < f.parameters.size(); ++i) {
    std::memcpy(launch.parameters.data() + f.parameters[i].offset, arguments[i],
                f.parameters[i].bytes);
  }
  return launch;
}

cudaError_t refuses(const void* kernel, const Launch& l) {
  if (l.grid.count() == 0 || l.block.count() == 0 || l.block.count() > 1024 || l.grid.y > 65535 ||
      l.grid.z > 65535) {
    return cudaErrorInvalidConfiguration;
  }
  const Kernel& k = runtime().kernels.at(kernel);
  constexpr size_t kAllowed = 48 << 10;  // static and dynamic, unless a kernel was allowed more
  const size_t dynamic = k.most_dynamic ? k.most_dynamic : kAllowed - l.function->shared_bytes;
  if (l.dynamic_shared > dynamic || l.block.count() > l.function->most_threads) {
    return cudaErrorInvalidValue;
  }
  if (l.cluster.count() > (k.any_cluster ? 16 : 8) || l.grid.x % l.cluster.x != 0) {
    return cudaErrorInvalidClusterSize;
  }
  return cudaSuccess;
}

cudaError_t enqueue(cudaStream_t stream, Node node) {
  if (runtime().broken) return cudaErrorLaunchFailure;
  if (stream != nullptr && of(stream)->captured) {
    of(stream)->captured->nodes.push_back(std::move(node));
    return cudaSuccess;
  }
  Graph one;
  one.nodes.push_back(std::move(node));
  return play(one);
}

}  // namespace nibble::emulator
