#include "base/cuda.h"

#include <atomic>
#include <fstream>
#include <iterator>

#include "base/check.h"
#include "base/cuda_check.h"
#include "base/cuda_driver.h"

namespace nibble::cuda {
namespace {

cudaStream_t stream_of(void* stream) { return static_cast<cudaStream_t>(stream); }
cudaEvent_t event_of(void* event) { return static_cast<cudaEvent_t>(event); }

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  NIBBLE_CUDA_CHECK(cudaDeviceGetAttribute(&value, which, device));
  return value;
}

// The kernel module's version; the runtime knows only the CUDA version that it supports.
std::string driver_version() {
  std::ifstream file("/proc/driver/nvidia/version");
  for (std::string word; file >> word;) {
    if (word.find('.') != std::string::npos &&
        word.find_first_not_of("0123456789.") == std::string::npos) {
      return word;
    }
  }
  int version = 0;
  NIBBLE_CUDA_CHECK(cudaDriverGetVersion(&version));
  return fmt::format("CUDA {}.{}", version / 1000, version % 1000 / 10);
}

}  // namespace

void fail_cuda(const char* what, cudaError_t status) {
  cudaGetLastError();  // what is reported here must not be reported by the next call again
  fail(ErrorCode::kDevice, "{}: {} ({})", what, cudaGetErrorString(status),
       cudaGetErrorName(status));
}

Properties properties(int device) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    cudaGetLastError();
    fail(ErrorCode::kDevice, "no CUDA device: {} ({})", cudaGetErrorString(status),
         cudaGetErrorName(status));
  }
  NIBBLE_CHECK(device >= 0 && device < count, ErrorCode::kDevice,
               "no CUDA device {}: this machine has {}", device, count);
  cudaDeviceProp prop;
  NIBBLE_CUDA_CHECK(cudaGetDeviceProperties(&prop, device));
  const double clock_hz = 1e3 * attribute(cudaDevAttrMemoryClockRate, device);
  const double bus_bytes = attribute(cudaDevAttrGlobalMemoryBusWidth, device) / 8.0;
  return {prop.name, prop.major * 10 + prop.minor, prop.multiProcessorCount,
          2 * clock_hz * bus_bytes / 1e9, driver_version()};
}

int num_sms(int device) {
  static std::atomic<int> known[64];
  const auto at = static_cast<size_t>(device);
  if (at >= std::size(known)) return attribute(cudaDevAttrMultiProcessorCount, device);
  int sms = known[at].load(std::memory_order_relaxed);
  if (sms == 0) known[at] = sms = attribute(cudaDevAttrMultiProcessorCount, device);
  return sms;
}

int set_device(int device) {
  // Not before the thread's first time: without a context the driver refuses, which is no harm but
  // what compute-sanitizer reports.
  thread_local bool known = false;
  CUdevice current = 0;
  if (known && driver().ctx_get_device(&current) == CUDA_SUCCESS && current == device) {
    return device;
  }
  known = true;
  int before = 0;
  NIBBLE_CUDA_CHECK(cudaGetDevice(&before));
  NIBBLE_CUDA_CHECK(cudaSetDevice(device));  // or the thread has no context yet
  return before;
}

void restore_device(int device) noexcept { cudaSetDevice(device); }

void* new_memory(int device, size_t bytes) {
  const DeviceScope scope(device);
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t free = 0, total = 0;
    NIBBLE_CUDA_CHECK(cudaMemGetInfo(&free, &total));
    fail(ErrorCode::kDevice, "out of memory: {} bytes asked of CUDA device {}, {} of {} are free",
         bytes, device, free, total);
  }
  check(status, "cudaMalloc");
  return memory;
}

// A destructor can't report: what a broken context refuses here, the next checked call says.
void delete_memory(int, void* memory) noexcept { cudaFree(memory); }

void* new_stream(int device) {
  const DeviceScope scope(device);
  cudaStream_t stream = nullptr;
  NIBBLE_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

void delete_stream(int, void* stream) noexcept { cudaStreamDestroy(stream_of(stream)); }

void* new_event(int device) {
  const DeviceScope scope(device);
  cudaEvent_t event = nullptr;
  NIBBLE_CUDA_CHECK(cudaEventCreate(&event));
  return event;
}

void delete_event(int, void* event) noexcept { cudaEventDestroy(event_of(event)); }

void copy(void* dst, const void* src, size_t bytes, void* stream) {
  NIBBLE_CUDA_CHECK(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDefault, stream_of(stream)));
}

void fill(void* dst, uint8_t value, size_t bytes, void* stream) {
  NIBBLE_CUDA_CHECK(cudaMemsetAsync(dst, value, bytes, stream_of(stream)));
}

void record(void* event, void* stream) {
  NIBBLE_CUDA_CHECK(cudaEventRecord(event_of(event), stream_of(stream)));
}

void begin_capture(void* stream) {
  NIBBLE_CUDA_CHECK(cudaStreamBeginCapture(stream_of(stream), cudaStreamCaptureModeThreadLocal));
}

void* end_capture(void* stream) {
  cudaGraph_t graph = nullptr;
  NIBBLE_CUDA_CHECK(cudaStreamEndCapture(stream_of(stream), &graph));
  cudaGraphExec_t exec = nullptr;
  const cudaError_t status = cudaGraphInstantiate(&exec, graph, 0);
  cudaGraphDestroy(graph);
  check(status, "cudaGraphInstantiate");
  return exec;
}

void delete_graph(int, void* graph) noexcept {
  cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph));
}

void launch_graph(void* graph, void* stream) {
  NIBBLE_CUDA_CHECK(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), stream_of(stream)));
}

void synchronize(void* stream) { NIBBLE_CUDA_CHECK(cudaStreamSynchronize(stream_of(stream))); }

double milliseconds(void* begin_event, void* end_event) {
  NIBBLE_CUDA_CHECK(cudaEventSynchronize(event_of(end_event)));
  float elapsed = 0;
  NIBBLE_CUDA_CHECK(cudaEventElapsedTime(&elapsed, event_of(begin_event), event_of(end_event)));
  return elapsed;
}

int device_of_stream(void* stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  NIBBLE_CUDA_CHECK(cudaStreamIsCapturing(stream_of(stream), &status));
  if (status != cudaStreamCaptureStatusNone) return -1;
  int device = 0;
  NIBBLE_CUDA_CHECK(cudaStreamGetDevice(stream_of(stream), &device));
  return device;
}

int device_of(const void* p) {
  unsigned type = 0, managed = 0;
  int device = 0;
  CUpointer_attribute what[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_IS_MANAGED,
                                CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL};
  void* values[] = {&type, &managed, &device};  // zeros for memory that the driver does not know
  const CUresult status = driver().pointer_get_attributes(std::size(what), what, values,
                                                          reinterpret_cast<CUdeviceptr>(p));
  check(static_cast<cudaError_t>(status), "cuPointerGetAttributes");
  return type == CU_MEMORYTYPE_DEVICE || managed != 0 ? device : -1;
}

}  // namespace nibble::cuda
