#include "kernels/cpu/tile_gemm.h"

#include <algorithm>
#include <utility>

#include "base/thread_pool.h"
#include "kernels/cpu/tile_loops.h"
#include "kernels/cpu/tiles.h"

namespace nibble::cpu {
namespace {

constexpr int64_t kCacheLine = 64;

constexpr int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Up to this many rows of A every thread packs them for itself: that costs less than one more
// hand-off.
constexpr int64_t kPackAloneRows = 2;

struct Shape {
  Shape(const GemmDesc& d, const TileLoops& loops)
      : k_padded(round_up(d.k, loops.k_multiple)),
        groups((d.m + loops.max_tokens - 1) / loops.max_tokens),
        row_bytes(k_padded / 16 * loops.a_bytes),
        packed_bytes(round_up(d.m * row_bytes, kCacheLine)),
        panel_bytes(loops.panel_head_bytes + k_padded / 16 * loops.panel_bytes),
        worker_bytes(panel_bytes * loops.max_tiles + (d.m <= kPackAloneRows ? packed_bytes : 0)) {}

  int64_t k_padded;
  int64_t groups;
  int64_t row_bytes;     // of a packed row
  int64_t packed_bytes;  // of all
  int64_t panel_bytes;   // of one widened tile
  int64_t worker_bytes;  // of work space that one thread has for itself
};

}  // namespace

size_t tile_gemm_workspace(const GemmDesc& desc, const TileLoops& loops, const DeviceInfo& device) {
  const Shape s(desc, loops);
  const int64_t shared = desc.m <= kPackAloneRows ? 0 : s.packed_bytes;
  return static_cast<size_t>(shared + s.worker_bytes * device.threads);
}

void run_tile_gemm(const GemmArgs& args, const TileLoops& loops, Stream stream) {
  const GemmDesc& d = args.desc;
  const PreparedWeight& w = *args.b;
  const Shape s(d, loops);
  uint8_t* const workspace = static_cast<uint8_t*>(args.workspace);
  const int64_t stride = tile_bytes(d.weight, d.k);
  const int64_t tiles = (d.n + kTileRows - 1) / kTileRows;

  const auto first_token = [&](int64_t group) { return d.m * group / s.groups; };
  const auto pack = [&](int64_t group, uint8_t* packed) {
    const int64_t first = first_token(group);
    const int tokens = static_cast<int>(first_token(group + 1) - first);
    for (int t = 0; t < tokens; ++t) {
      loops.pack(args.a.row<const float>(first + t), d.k, t, tokens, packed + first * s.row_bytes);
    }
  };

  const bool pack_alone = d.m <= kPackAloneRows;
  if (!pack_alone) {
    stream.pool->parallel_for(s.groups, 1, [&](int64_t begin, int64_t end) {
      for (int64_t g = begin; g < end; ++g) pack(g, workspace);
    });
  }

  const int64_t units = (tiles + loops.max_tiles - 1) / loops.max_tiles;
  const auto multiply = [&](int worker, ThreadPool::Parts& parts) {
    int64_t begin, end;
    if (!parts.next(begin, end)) return;
    uint8_t* const own = workspace + (pack_alone ? 0 : s.packed_bytes) + worker * s.worker_bytes;
    uint8_t* const packed = pack_alone ? own + s.panel_bytes * loops.max_tiles : workspace;
    if (pack_alone) {
      for (int64_t g = 0; g < s.groups; ++g) pack(g, packed);
    }
    for (int64_t unit = begin; unit < end || parts.next(unit, end); ++unit) {
      const int64_t tile = unit * loops.max_tiles;
      const int64_t row = tile * kTileRows;
      const uint8_t* const codes = w.codes + tile * stride;
      TileBlock block{.format = d.weight,
                      .b = codes,
                      .b_stride = stride,
                      .tiles = static_cast<int>(std::min<int64_t>(loops.max_tiles, tiles - tile)),
                      .a = nullptr,
                      .tokens = 0,
                      .k = d.k,
                      .alpha = w.row_alpha + row,
                      .rows = 0,
                      .d = nullptr,
                      .d_stride = args.d.stride,
                      .c = nullptr,
                      .c_stride = args.c.stride};
      block.rows = static_cast<int>(std::min<int64_t>(block.tiles * kTileRows, d.n - row));
      if (loops.widen != nullptr) {
        for (int i = 0; i < block.tiles; ++i) {
          loops.widen(d.weight, codes + i * stride, d.k, own + i * s.panel_bytes);
        }
        block.b = own;
        block.b_stride = s.panel_bytes;
      }
      // While these tiles are multiplied the next ones come from memory, a slice a group.
      const int64_t ahead = loops.widen == nullptr ? 0 : loops.max_tiles * stride;
      const int64_t slice = round_up(ahead / s.groups + 1, kCacheLine);
      int64_t next = 0;
      for (int64_t g = 0; g < s.groups; ++g) {
        for (int64_t p = g * slice; p < std::min((g + 1) * slice, ahead); p += kCacheLine) {
          __builtin_prefetch(codes + ahead + p, 0, 2);
        }
        const int64_t first = std::exchange(next, first_token(g + 1));
        block.a = packed + first * s.row_bytes;
        block.tokens = static_cast<int>(next - first);
        block.d = args.d.row<float>(first) + row;
        block.c = d.has_c ? args.c.row<const float>(first) + row : nullptr;
        loops.multiply(block);
      }
    }
  };
  stream.pool->share(units, 1, multiply);
}

namespace {

// Loops for few rows of A, and for many where there is a difference.
template <const TileLoops& kFew, const TileLoops& kMany>
const TileLoops& loops_for(int64_t m) {
  return m <= kFew.best_up_to ? kFew : kMany;
}

template <const TileLoops& kFew, const TileLoops& kMany = kFew>
void launch(const GemmArgs& args, const KernelConfig&, Stream stream) {
  run_tile_gemm(args, loops_for<kFew, kMany>(args.desc.m), stream);
}

template <const TileLoops& kFew, const TileLoops& kMany = kFew>
size_t workspace_bytes(const GemmDesc& d, const KernelConfig&, const DeviceInfo& device) {
  // A plan asks once for a range of m.
  const size_t few = tile_gemm_workspace(d, kFew, device);
  return std::max(few, tile_gemm_workspace(d, kMany, device));
}

// The 16bit and bf16 modes differ in how A is packed only.
struct Fp32Loops {
  const TileLoops &exact_few, &exact_many, &bf16_few, &bf16_many;
};
constexpr Fp32Loops kAvx2Fp32 = {avx2::kExactTiles, avx2::kExactPanels, avx2::kBf16Tiles,
                                 avx2::kBf16Panels};
constexpr Fp32Loops kAvx512Fp32 = {avx512::kExactTiles, avx512::kExactPanels, avx512::kBf16Tiles,
                                   avx512::kBf16Panels};

template <const Fp32Loops& kLoops>
void launch_fp32(const GemmArgs& args, const KernelConfig& config, Stream stream) {
  if (args.desc.activation == ActivationMode::kBf16) {
    return launch<kLoops.bf16_few, kLoops.bf16_many>(args, config, stream);
  }
  launch<kLoops.exact_few, kLoops.exact_many>(args, config, stream);
}

Support reads_tiles(const GemmDesc& d, const DeviceInfo& device) {
  if (d.has_bias || d.silu_mul) return Support::no("no bias and no silu_mul");
  if (device.kind != DeviceKind::kCpu) return Support::no("runs on a CPU only");
  if (d.layout != WeightLayout::kCpuTiles) {
    return Support::no("reads cpu_tiles weights, found {}", to_string(d.layout));
  }
  if (d.a_type != DType::kF32 || d.d_type != DType::kF32) {
    return Support::no("activations must be F32, found {} and {}", to_string(d.a_type),
                       to_string(d.d_type));
  }
  return Support::yes();
}

template <ActivationMode kMode, bool CpuFeatures::*... kFeatures>
Support takes(const GemmDesc& d, const DeviceInfo& device) {
  if (!(... && (device.cpu.*kFeatures))) {
    return Support::no("this processor lacks its instructions");
  }
  if (d.activation != kMode) {
    return Support::no("takes {} activations, found {}", to_string(kMode), to_string(d.activation));
  }
  return reads_tiles(d, device);
}

template <bool CpuFeatures::*kFeature>
Support takes_fp32(const GemmDesc& d, const DeviceInfo& device) {
  if (!(device.cpu.*kFeature)) return Support::no("this processor lacks its instructions");
  if (d.activation != ActivationMode::k16Bit && d.activation != ActivationMode::kBf16) {
    return Support::no("takes 16bit and bf16 activations, found {}", to_string(d.activation));
  }
  return reads_tiles(d, device);
}

}  // namespace

const GemmImpl kAvx2Int8Gemm = {
    .name = "cpu_avx2_int8_gemm",
    .can_implement = takes<ActivationMode::kInt8, &CpuFeatures::avx2>,
    .launch = launch<avx2::kInt8Tiles, avx2::kInt8Panels>,
    .workspace_bytes = workspace_bytes<avx2::kInt8Tiles, avx2::kInt8Panels>};
const GemmImpl kAvxVnniInt8Gemm = {
    .name = "cpu_avxvnni_int8_gemm",
    .can_implement = takes<ActivationMode::kInt8, &CpuFeatures::avx_vnni>,
    .launch = launch<avx2::kVnniInt8Tiles, avx2::kVnniInt8Panels>,
    .workspace_bytes = workspace_bytes<avx2::kVnniInt8Tiles, avx2::kVnniInt8Panels>};
const GemmImpl kAvx2TileGemm = {
    .name = "cpu_avx2_tile_gemm",
    .can_implement = takes_fp32<&CpuFeatures::avx2>,
    .launch = launch_fp32<kAvx2Fp32>,
    .workspace_bytes = workspace_bytes<avx2::kExactTiles, avx2::kExactPanels>};
const GemmImpl kAvx512Int8Gemm = {
    .name = "cpu_avx512_int8_gemm",
    .can_implement = takes<ActivationMode::kInt8, &CpuFeatures::avx512_vnni>,
    .launch = launch<avx512::kInt8Tiles>,
    .workspace_bytes = workspace_bytes<avx512::kInt8Tiles>};
const GemmImpl kAvx512TileGemm = {
    .name = "cpu_avx512_tile_gemm",
    .can_implement = takes_fp32<&CpuFeatures::avx512>,
    .launch = launch_fp32<kAvx512Fp32>,
    .workspace_bytes = workspace_bytes<avx512::kExactTiles, avx512::kExactPanels>};
const GemmImpl kAvx512Bf16Gemm = {
    .name = "cpu_avx512_bf16_gemm",
    .can_implement = takes<ActivationMode::kBf16, &CpuFeatures::avx512_bf16>,
    .launch = launch<avx512::kBf16DotTiles, avx512::kBf16DotPanels>,
    .workspace_bytes = workspace_bytes<avx512::kBf16DotTiles, avx512::kBf16DotPanels>};
const GemmImpl kAmxBf16Gemm = {
    .name = "cpu_amx_bf16_gemm",
    // Few tokens take the other's loops; every chip with AMX has both.
    .can_implement =
        takes<ActivationMode::kBf16, &CpuFeatures::amx_bf16, &CpuFeatures::avx512_bf16>,
    .launch = launch<avx512::kBf16DotTiles, amx::kBf16Panels>,
    .workspace_bytes = workspace_bytes<avx512::kBf16DotTiles, amx::kBf16Panels>};

}  // namespace nibble::cpu
