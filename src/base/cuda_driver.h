// Functions of the CUDA driver that is there, so that programs start without one. What a launch
// needs is called here and not by the runtime, which looks up what each handle stands for: the
// calls of a launch took 2.4 us of the host instead of 3.0, on a faster CPU 1.6 instead of 1.9
// (H200, driver 580.159.04).
#pragma once

#include <cuda.h>

namespace nibble::cuda {

struct Driver {
  decltype(&cuCtxGetDevice) ctx_get_device = nullptr;
  decltype(&cuGraphExecKernelNodeSetParams) graph_exec_kernel_node_set_params = nullptr;
  decltype(&cuGraphLaunch) graph_launch = nullptr;
  decltype(&cuPointerGetAttributes) pointer_get_attributes = nullptr;
  decltype(&cuStreamGetId) stream_get_id = nullptr;
  decltype(&cuStreamIsCapturing) stream_is_capturing = nullptr;
  decltype(&cuTensorMapEncodeTiled) tensor_map_encode_tiled = nullptr;
};

// Looked up by the first call. Throws kDevice, naming the function, where the driver is older than
// 12.0. Of what these functions return, the runtime's errors have the same numbers.
const Driver& driver();

}  // namespace nibble::cuda
