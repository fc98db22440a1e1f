// For a build without CUDA.
#include "kernels/cuda/list.h"

namespace nibble::cuda {

KernelList kernels() { return {}; }

}  // namespace nibble::cuda
