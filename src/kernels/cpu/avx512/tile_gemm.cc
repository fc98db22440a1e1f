#include "kernels/cpu/avx512/vec.h"
#include "kernels/cpu/vector/panel_gemm.h"

namespace nibble::cpu::avx512 {

const TileLoops kExactPanels = panel_loops(pack_exact);
const TileLoops kBf16Panels = panel_loops(pack_bf16);

}  // namespace nibble::cpu::avx512
