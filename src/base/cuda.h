// CUDA devices, memory, streams and events, without a CUDA header: cuda.cc where CUDA is built,
// cuda_none.cc (every call throws kDevice) where it is not. Streams and events are the runtime's
// own handles as void*. Every failure throws kDevice, with the runtime's message.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

namespace nibble::cuda {

struct Properties {
  std::string name;
  int sm = 0;  // 90 for compute capability 9.0
  int num_sms = 0;
  double bandwidth_gbps = 0.0;  // memory clock * bus width * 2
  std::string driver;           // "580.159.04", or "CUDA 13.0" where the module does not say
};
// Throws kDevice ("no CUDA device ...") where the machine has no such device or no driver.
Properties properties(int device);

// Properties::num_sms, for launches: asked of the runtime once for a device.
int num_sms(int device);

// The device that the calling thread's next calls are for. A thread that is new to CUDA gets its
// context, without which the driver's own functions refuse.
int set_device(int device);  // returns the one before
void restore_device(int device) noexcept;
// For a scope.
class DeviceScope {
 public:
  explicit DeviceScope(int device) : device_(device), before_(set_device(device)) {}
  ~DeviceScope() {
    if (before_ != device_) restore_device(before_);
  }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int device_, before_;
};

// What the RAII types below stand on; `device` must be the one that made the handle.
void* new_memory(int device, size_t bytes);
void delete_memory(int device, void* memory) noexcept;
void* new_stream(int device);  // does not wait for the legacy default stream
void delete_stream(int device, void* stream) noexcept;
void* new_event(int device);  // with timing
void delete_event(int device, void* event) noexcept;

// In stream order. Either side of a copy may be host memory, which must outlive it.
void copy(void* dst, const void* src, size_t bytes, void* stream);
void fill(void* dst, uint8_t value, size_t bytes, void* stream);
void record(void* event, void* stream);

// Between the two, calls on the stream are recorded and not run. end_capture gives a graph that
// launch_graph runs any number of times.
void begin_capture(void* stream);
void* end_capture(void* stream);
void delete_graph(int device, void* graph) noexcept;
void launch_graph(void* graph, void* stream);

// How many graphs were made so far, in the whole process, to launch single kernels as
// (graph_launch.h): whoever prepares a launch sees by it whether its graph is new.
int64_t kernel_graphs();

void synchronize(void* stream);                           // throws what a kernel in it did wrong
double milliseconds(void* begin_event, void* end_event);  // waits for the second

// The device that a stream is of; of cudaStreamLegacy, the thread's current one. -1 while a graph
// is captured from it, when the runtime does not tell.
int device_of_stream(void* stream);

// The device that `p` was allocated on, -1 for memory of the host.
int device_of(const void* p);

// Owns one handle of a device; movable, empty once moved from.
template <auto kDelete>
class Handle {
 public:
  Handle() = default;
  Handle(int device, void* handle) : device_(device), handle_(handle) {}
  Handle(Handle&& other) noexcept
      : device_(other.device_), handle_(std::exchange(other.handle_, nullptr)) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Handle() {
    if (handle_ != nullptr) kDelete(device_, handle_);
  }
  void* get() const { return handle_; }
  int device() const { return device_; }

 private:
  int device_ = 0;
  void* handle_ = nullptr;
};

struct OwnedStream : Handle<delete_stream> {
  explicit OwnedStream(int device) : Handle(device, new_stream(device)) {}
};

struct OwnedEvent : Handle<delete_event> {
  explicit OwnedEvent(int device) : Handle(device, new_event(device)) {}
};

using OwnedGraph = Handle<delete_graph>;

// Device memory, aligned to 256 bytes.
struct Buffer : Handle<delete_memory> {
  Buffer() = default;
  Buffer(int device, size_t bytes) : Handle(device, new_memory(device, bytes)) {}
  uint8_t* data() const { return static_cast<uint8_t*>(get()); }
};

}  // namespace nibble::cuda
