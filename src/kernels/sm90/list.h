#pragma once

#include "ops/kernel_list.h"

namespace nibble::sm90 {

KernelList kernels();

}  // namespace nibble::sm90
