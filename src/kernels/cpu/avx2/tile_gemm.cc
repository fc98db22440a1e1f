#include "kernels/cpu/avx2/vec.h"
//
#include "kernels/cpu/vector/panel_gemm.h"
#include "kernels/cpu/vector/tile_dot.h"

namespace nibble::cpu::avx2 {

const TileLoops kExactTiles = dot_loops<Fp32Step>(pack_pairs<false>);
const TileLoops kBf16Tiles = dot_loops<Fp32Step>(pack_pairs<true>);
const TileLoops kExactPanels = panel_loops(pack_exact);
const TileLoops kBf16Panels = panel_loops(pack_bf16);

}  // namespace nibble::cpu::avx2
