// For a build without CUDA.
#include "kernels/sm120/list.h"

namespace nibble::sm120 {

KernelList kernels() { return {}; }

}  // namespace nibble::sm120
