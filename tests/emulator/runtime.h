// What the emulated GPU's CUDA runtime keeps between calls.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "tests/emulator/machine.h"

namespace nibble::emulator {

inline constexpr size_t kMemory = size_t{8} << 30;

// An A100, an H200 or an RTX PRO 6000: by NIBBLE_EMULATED_SM (80, 90, 120; 90 without), with
// another number of SMs by NIBBLE_EMULATED_SMS.
struct Chip {
  int sm, num_sms;
  int shared_bytes;  // of a block
};
const Chip& chip();

struct Node {
  Launch launch;
  std::function<void()> other;  // a copy and the like
};
struct Graph {
  std::vector<Node> nodes;
};
struct Stream {
  unsigned long long id;
  std::unique_ptr<Graph> captured;
};
struct Event {
  std::chrono::steady_clock::time_point at;
};
struct Kernel {
  Module* module;
  std::string name;
  size_t most_dynamic = 0;  // bytes of shared memory that it was allowed; 0: what all are
  bool any_cluster = false;
};

struct Runtime {
  std::recursive_mutex mutex;
  std::vector<std::unique_ptr<Module>> modules;
  std::map<const void*, Kernel> kernels;
  unsigned long long streams = 0;
  cudaError_t last = cudaSuccess;
  bool broken = false;  // by a kernel that faulted
};
Runtime& runtime();
#define NIBBLE_LOCK const std::lock_guard lock(::nibble::emulator::runtime().mutex)

// Remembers what went wrong for cudaGetLastError.
cudaError_t keep(cudaError_t status);
// For the chip, of a fat binary; "" where there is none (cmake/NibbleCuda.cmake).
std::string ptx_of(const uint8_t* fat);
Launch make_launch(const void* kernel, dim3 grid, dim3 block, size_t shared, dim3 cluster,
                   void** arguments);
cudaError_t refuses(const void* kernel, const Launch& launch);
// Done at once, or captured.
cudaError_t enqueue(cudaStream_t stream, Node node);
inline Stream* of(cudaStream_t stream) { return reinterpret_cast<Stream*>(stream); }
// Whether the calling thread has a context: a new one has none before cudaSetDevice.
bool& has_context();
// Of those that Nibble looks up; null for others.
void* driver_function(const char* name);

}  // namespace nibble::emulator
