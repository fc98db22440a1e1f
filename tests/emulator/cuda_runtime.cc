// The CUDA runtime of the emulated GPU: what Nibble and its tests call of it, and what nvcc's host
// code registers kernels with. It is linked in libcudart's place. Everything is done where it is
// called, so streams and events have nothing to wait for.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/emulator/runtime.h"

using namespace nibble::emulator;

// The registration that nvcc writes.
extern "C" {
struct FatBinaryWrapper {
  int magic, version;
  const void* data;
  void* name;
};
void** __cudaRegisterFatBinary(void* fat) {
  const auto* wrapper = static_cast<const FatBinaryWrapper*>(fat);
  runtime().modules.push_back(
      std::make_unique<Module>(ptx_of(static_cast<const uint8_t*>(wrapper->data))));
  return reinterpret_cast<void**>(runtime().modules.back().get());
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void** module, const char* host, char*, const char* name, int, uint3*,
                            uint3*, dim3*, dim3*, int*) {
  runtime().kernels[host] = {reinterpret_cast<Module*>(module), name};
}
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
char __cudaInitModule(void**) { return 0; }
unsigned __cudaPushCallConfiguration(dim3, dim3, size_t, cudaStream_t) { std::abort(); }
cudaError_t __cudaPopCallConfiguration(dim3*, dim3*, size_t*, void*) { std::abort(); }
cudaError_t __cudaGetKernel(cudaKernel_t*, const void*) { std::abort(); }
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t) {
  std::abort();
}
}

cudaError_t cudaGetLastError() {
  NIBBLE_LOCK;
  const cudaError_t last = runtime().last;
  runtime().last = runtime().broken ? cudaErrorLaunchFailure : cudaSuccess;
  return last;
}
const char* cudaGetErrorName(cudaError_t status) {
  switch (status) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    default:
      return "a CUDA error of the emulator";
  }
}
const char* cudaGetErrorString(cudaError_t status) { return cudaGetErrorName(status); }

cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device != 0) return keep(cudaErrorInvalidDevice);
  has_context() = true;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "emulated sm_%d", chip().sm);
  properties->major = chip().sm / 10;
  properties->minor = chip().sm % 10;
  properties->multiProcessorCount = chip().num_sms;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
  switch (which) {
    case cudaDevAttrComputeCapabilityMajor:
      *value = chip().sm / 10;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = chip().sm % 10;
      return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      *value = chip().num_sms;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = chip().shared_bytes;
      return cudaSuccess;
    case cudaDevAttrMemoryClockRate:
      *value = 3201000;
      return cudaSuccess;
    case cudaDevAttrGlobalMemoryBusWidth:
      *value = 6144;
      return cudaSuccess;
    default:
      return keep(cudaErrorInvalidValue);
  }
}
cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** found, unsigned,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  *found = driver_function(name);
  *result = *found ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** p, size_t bytes) {
  NIBBLE_LOCK;
  *p = bytes > kMemory ? nullptr : memory().allocate(bytes);
  return keep(*p == nullptr ? cudaErrorMemoryAllocation : cudaSuccess);
}
cudaError_t cudaFree(void* p) {
  NIBBLE_LOCK;
  return keep(p == nullptr || memory().free(p) ? cudaSuccess : cudaErrorInvalidValue);
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *free = *total = kMemory;
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
  NIBBLE_LOCK;
  return keep(enqueue(stream, {{}, [=] { std::memcpy(to, from, bytes); }}));
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  NIBBLE_LOCK;
  return keep(enqueue(stream, {{}, [=] { std::memset(to, value, bytes); }}));
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  NIBBLE_LOCK;
  *stream = reinterpret_cast<cudaStream_t>(new Stream{++runtime().streams, nullptr});
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete of(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  NIBBLE_LOCK;
  return keep(runtime().broken ? cudaErrorLaunchFailure : cudaSuccess);
}
cudaError_t cudaStreamGetDevice(cudaStream_t, int* device) { return cudaGetDevice(device); }
cudaError_t cudaStreamGetPriority(cudaStream_t, int* priority) {
  *priority = 0;
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  return static_cast<cudaError_t>(
      cuStreamIsCapturing(stream, reinterpret_cast<CUstreamCaptureStatus*>(status)));
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode*) { return cudaSuccess; }
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  of(stream)->captured = std::make_unique<Graph>();
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = reinterpret_cast<cudaGraph_t>(of(stream)->captured.release());
  return cudaSuccess;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  NIBBLE_LOCK;
  return keep(enqueue(stream, {{}, [=] { function(data); }}));
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  *event = reinterpret_cast<cudaEvent_t>(new Event);
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete reinterpret_cast<Event*>(event);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  reinterpret_cast<Event*>(event)->at = std::chrono::steady_clock::now();
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaStreamSynchronize(nullptr); }
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t begin, cudaEvent_t end) {
  const auto* first = reinterpret_cast<const Event*>(begin);
  const auto* last = reinterpret_cast<const Event*>(end);
  *ms = std::chrono::duration<float, std::milli>(last->at - first->at).count();
  return cudaSuccess;
}

cudaError_t cudaGetFuncBySymbol(cudaFunction_t* function, const void* kernel) {
  *function = static_cast<cudaFunction_t>(const_cast<void*>(kernel));
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* kernel) {
  NIBBLE_LOCK;
  *attributes = {};
  const Kernel& k = runtime().kernels.at(kernel);
  attributes->sharedSizeBytes = k.module->kernel(k.name).shared_bytes;
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute which, int value) {
  NIBBLE_LOCK;
  Kernel& k = runtime().kernels.at(kernel);
  if (which == cudaFuncAttributeNonPortableClusterSizeAllowed) k.any_cluster = value != 0;
  if (which != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  const size_t fixed = k.module->kernel(k.name).shared_bytes, bytes = static_cast<size_t>(value);
  if (fixed + bytes > static_cast<size_t>(chip().shared_bytes)) return keep(cudaErrorInvalidValue);
  k.most_dynamic = bytes;
  return cudaSuccess;
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* kernel,
                                void** arguments) {
  NIBBLE_LOCK;
  dim3 cluster = 1;
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    if (config->attrs[i].id != cudaLaunchAttributeClusterDimension) continue;
    const auto& dim = config->attrs[i].val.clusterDim;
    cluster = {dim.x, dim.y, dim.z};
  }
  Node node = {make_launch(kernel, config->gridDim, config->blockDim, config->dynamicSmemBytes,
                           cluster, arguments),
               {}};
  if (const cudaError_t status = refuses(kernel, node.launch); status != cudaSuccess)
    return keep(status);
  return keep(enqueue(config->stream, std::move(node)));
}

// A node's handle is where it stands, so a graph that is not captured has one only.
cudaError_t cudaGraphCreate(cudaGraph_t* graph, unsigned) {
  *graph = reinterpret_cast<cudaGraph_t>(new Graph);
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete reinterpret_cast<Graph*>(graph);
  return cudaSuccess;
}
cudaError_t cudaGraphAddKernelNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t*,
                                   size_t, const cudaKernelNodeParams* p) {
  NIBBLE_LOCK;
  auto& nodes = reinterpret_cast<Graph*>(graph)->nodes;
  nodes.push_back(
      {make_launch(p->func, p->gridDim, p->blockDim, p->sharedMemBytes, 1, p->kernelParams), {}});
  *node = reinterpret_cast<cudaGraphNode_t>(&nodes.back());
  return cudaSuccess;
}
cudaError_t cudaGraphKernelNodeSetAttribute(cudaGraphNode_t node, cudaLaunchAttributeID id,
                                            const cudaLaunchAttributeValue* value) {
  if (id == cudaLaunchAttributeClusterDimension) {
    const auto& dim = value->clusterDim;
    reinterpret_cast<Node*>(node)->launch.cluster = {dim.x, dim.y, dim.z};
  }
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = reinterpret_cast<cudaGraphExec_t>(new Graph(*reinterpret_cast<const Graph*>(graph)));
  return cudaSuccess;
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete reinterpret_cast<Graph*>(exec);
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  return keep(static_cast<cudaError_t>(cuGraphLaunch(exec, stream)));
}
