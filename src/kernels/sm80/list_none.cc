// For a build without CUDA.
#include "kernels/sm80/list.h"

namespace nibble::sm80 {

KernelList kernels() { return {}; }

}  // namespace nibble::sm80
