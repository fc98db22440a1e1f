#include "kernels/cpu/avx2/vec.h"
#include "kernels/cpu/vector/panel_gemm.h"

namespace nibble::cpu::avx2 {

const TileLoops kExactPanels = panel_loops(pack_exact);
const TileLoops kBf16Panels = panel_loops(pack_bf16);

}  // namespace nibble::cpu::avx2
