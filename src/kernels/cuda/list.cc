#include "kernels/cuda/list.h"

#include "kernels/cuda/fp4_rows.h"
#include "kernels/cuda/quantize.h"

namespace nibble::cuda {
namespace {

const WeightLayoutImpl kWeightLayouts[] = {
    {.layout = WeightLayout::kFp4Rows, .can_prepare = can_prepare_rows, .prepare = prepare_rows}};
const QuantizeImpl kQuantizes[] = {kQuantize};
const DequantizeImpl kDequantizes[] = {kDequantize};

}  // namespace

KernelList kernels() {
  return {.weight_layout = kWeightLayouts, .quantize = kQuantizes, .dequantize = kDequantizes};
}

}  // namespace nibble::cuda
