#include "kernels/cuda/list.h"

#include "kernels/cuda/quantize.h"

namespace nibble::cuda {
namespace {

const QuantizeImpl kQuantizes[] = {kQuantize};
const DequantizeImpl kDequantizes[] = {kDequantize};

}  // namespace

KernelList kernels() { return {.quantize = kQuantizes, .dequantize = kDequantizes}; }

}  // namespace nibble::cuda
