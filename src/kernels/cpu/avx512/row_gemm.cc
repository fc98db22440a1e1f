#include "kernels/cpu/avx512/vec.h"
#include "kernels/cpu/vector/row_dot.h"

namespace nibble::cpu::avx512 {

const RowLoops kRows = {.max_tokens = kRowTokens, .multiply = multiply_any_rows};

}  // namespace nibble::cpu::avx512
