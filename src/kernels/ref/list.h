#pragma once

#include "ops/kernel_list.h"

namespace nibble::ref {

// The oracle: every op, every format, layout and mode, on a CPU. Last in every table.
KernelList kernels();

}  // namespace nibble::ref
