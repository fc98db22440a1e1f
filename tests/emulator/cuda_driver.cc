// The CUDA driver of the emulated GPU: the functions that Nibble looks up (base/cuda_driver.h).
#include <cstring>
#include <string_view>

#include "tests/emulator/runtime.h"
#include "tests/emulator/tensor_map.h"

using namespace nibble::emulator;

bool& nibble::emulator::has_context() {
  thread_local bool has = false;
  return has;
}

CUresult cuCtxGetDevice(CUdevice* device) {
  if (!has_context()) return CUDA_ERROR_INVALID_CONTEXT;
  *device = 0;
  return CUDA_SUCCESS;
}

// Of graphs of one node, which is all that Nibble changes.
CUresult cuGraphExecKernelNodeSetParams(CUgraphExec exec, CUgraphNode,
                                        const CUDA_KERNEL_NODE_PARAMS* p) {
  NIBBLE_LOCK;
  Node& node = reinterpret_cast<Graph*>(exec)->nodes.front();
  const Dim c = node.launch.cluster;
  node.launch = make_launch(p->func, {p->gridDimX, p->gridDimY, p->gridDimZ},
                            {p->blockDimX, p->blockDimY, p->blockDimZ}, p->sharedMemBytes,
                            dim3(c.x, c.y, c.z), p->kernelParams);
  return static_cast<CUresult>(refuses(p->func, node.launch));
}
CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream) {
  NIBBLE_LOCK;
  for (const Node& node : reinterpret_cast<const Graph*>(exec)->nodes) {
    if (const cudaError_t s = enqueue(stream, node); s != cudaSuccess) {
      return static_cast<CUresult>(s);
    }
  }
  return CUDA_SUCCESS;
}

CUresult cuPointerGetAttributes(unsigned count, CUpointer_attribute* what, void** values,
                                CUdeviceptr p) {
  NIBBLE_LOCK;
  for (unsigned i = 0; i < count; ++i) {
    const bool is_type = what[i] == CU_POINTER_ATTRIBUTE_MEMORY_TYPE;
    *static_cast<unsigned*>(values[i]) =
        is_type && memory().contains(p, 1) ? unsigned{CU_MEMORYTYPE_DEVICE} : 0;
  }
  return CUDA_SUCCESS;
}

CUresult cuStreamGetId(CUstream stream, unsigned long long* id) {
  *id = stream == nullptr ? 0 : of(stream)->id;
  return CUDA_SUCCESS;
}
CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus* status) {
  const bool captures = stream != nullptr && of(stream)->captured != nullptr;
  *status = captures ? CU_STREAM_CAPTURE_STATUS_ACTIVE : CU_STREAM_CAPTURE_STATUS_NONE;
  return CUDA_SUCCESS;
}

CUresult cuTensorMapEncodeTiled(CUtensorMap* to, CUtensorMapDataType type, cuuint32_t rank,
                                void* data, const cuuint64_t* sizes, const cuuint64_t* strides,
                                const cuuint32_t* box, const cuuint32_t* steps,
                                CUtensorMapInterleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  if (!has_context()) return CUDA_ERROR_INVALID_CONTEXT;
  const auto base = reinterpret_cast<uint64_t>(data);
  if (type != CU_TENSOR_MAP_DATA_TYPE_UINT16 || swizzle != CU_TENSOR_MAP_SWIZZLE_128B || rank < 2 ||
      rank > 3 || base % 16 != 0 || box[0] * kElement != 128) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  TensorMap map = {static_cast<const uint8_t*>(data), rank, {}, {}, {}};
  for (uint32_t d = 0; d < rank; ++d) {
    if (sizes[d] == 0 || box[d] == 0 || box[d] > 256 || steps[d] != 1 ||
        (d > 0 && strides[d - 1] % 16 != 0)) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    map.sizes[d] = sizes[d];
    map.box[d] = box[d];
    if (d > 0) map.strides[d - 1] = strides[d - 1];
  }
  std::memset(to, 0, sizeof *to);
  std::memcpy(to, &map, sizeof map);
  return CUDA_SUCCESS;
}

void* nibble::emulator::driver_function(const char* name) {
#define NIBBLE_FUNCTION(function) \
  if (std::string_view(name) == #function) return reinterpret_cast<void*>(&function)
  NIBBLE_FUNCTION(cuCtxGetDevice);
  NIBBLE_FUNCTION(cuGraphExecKernelNodeSetParams);
  NIBBLE_FUNCTION(cuGraphLaunch);
  NIBBLE_FUNCTION(cuPointerGetAttributes);
  NIBBLE_FUNCTION(cuStreamGetId);
  NIBBLE_FUNCTION(cuStreamIsCapturing);
  NIBBLE_FUNCTION(cuTensorMapEncodeTiled);
#undef NIBBLE_FUNCTION
  return nullptr;
}
