// For a build without CUDA.
#include "kernels/sm90/list.h"

namespace nibble::sm90 {

KernelList kernels() { return {}; }

}  // namespace nibble::sm90
