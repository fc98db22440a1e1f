#include "kernels/cpu/vector_loops.h"

#include "kernels/cpu/avx2/vec.h"
//
#include "kernels/cpu/vector/math.h"
//
#include "kernels/cpu/vector/attention.h"
#include "kernels/cpu/vector/elementwise.h"

namespace nibble::cpu::avx2 {

const VectorLoops kVectorLoops = {.rms_norm = rms_norm,
                                  .rope_factors = rope_factors,
                                  .rotate = rotate,
                                  .silu_mul = silu_mul,
                                  .attend = attend,
                                  .widen_row = widen_row,
                                  .sampling = {.argmax = argmax, .exp_sum = exp_sum, .find = find}};

}  // namespace nibble::cpu::avx2
