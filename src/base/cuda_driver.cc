#include "base/cuda_driver.h"

#include "base/check.h"
#include "base/cuda_check.h"

namespace nibble::cuda {
namespace {

constexpr int kVersion = 12000;  // whose functions cuda.h's names without a suffix stand for

template <class Function>
void find(const char* name, Function& function) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result;
  NIBBLE_CUDA_CHECK(
      cudaGetDriverEntryPointByVersion(name, &found, kVersion, cudaEnableDefault, &result));
  NIBBLE_CHECK(result == cudaDriverEntryPointSuccess, ErrorCode::kDevice,
               "the CUDA driver has no {}: 12.0 or newer is needed", name);
  function = reinterpret_cast<Function>(found);
}

Driver found_driver() {
  Driver d;
  find("cuCtxGetDevice", d.ctx_get_device);
  find("cuGraphExecKernelNodeSetParams", d.graph_exec_kernel_node_set_params);
  find("cuGraphLaunch", d.graph_launch);
  find("cuPointerGetAttributes", d.pointer_get_attributes);
  find("cuStreamGetId", d.stream_get_id);
  find("cuStreamIsCapturing", d.stream_is_capturing);
  find("cuTensorMapEncodeTiled", d.tensor_map_encode_tiled);
  return d;
}

}  // namespace

const Driver& driver() {
  static const Driver found = found_driver();
  return found;
}

}  // namespace nibble::cuda
