// GEMMs over WeightLayout::kCpuTiles: threads, work space and blocking, the same for every
// instruction set; what differs stands in a TileLoops.
#pragma once

#include <cstdint>

#include "kernels/cpu/tile_loops.h"
#include "ops/gemm.h"

namespace nibble::cpu {

void run_tile_gemm(const GemmArgs& args, const TileLoops& loops, Stream stream);
size_t tile_gemm_workspace(const GemmDesc& desc, const TileLoops& loops, const DeviceInfo& device);

extern const GemmImpl kAvx2Int8Gemm;     // "cpu_avx2_int8_gemm": vpmaddubsw
extern const GemmImpl kAvxVnniInt8Gemm;  // "cpu_avxvnni_int8_gemm": 256-bit vpdpbusd
extern const GemmImpl kAvx2TileGemm;     // "cpu_avx2_tile_gemm": fp32 FMA, modes 16bit and bf16
extern const GemmImpl kAvx512Int8Gemm;   // "cpu_avx512_int8_gemm": vpdpbusd
extern const GemmImpl kAvx512TileGemm;   // "cpu_avx512_tile_gemm": fp32 FMA, modes 16bit and bf16
extern const GemmImpl kAvx512Bf16Gemm;   // "cpu_avx512_bf16_gemm": vdpbf16ps
extern const GemmImpl kAmxBf16Gemm;      // "cpu_amx_bf16_gemm": tdpbf16ps

}  // namespace nibble::cpu
