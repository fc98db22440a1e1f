#include <algorithm>
#include <array>
#include <atomic>
#include <random>

#include "base/cuda_check.h"
#include "base/launch.h"
#include "kernels/cuda/tensor_map.h"
#include "kernels/sm90/gemm_wgmma.cuh"
#include "kernels/sm90/gemm_wgmma.h"

namespace nibble::sm90 {

template <int kTokens, int kMaxGroups, int kKGroups, bool kMulticast, Wide kWide>
__global__ void __launch_bounds__(kMaxGroups * 128 + 128, 1)
    wgmma_gemm(const __grid_constant__ CUtensorMap activations, const WgmmaParams p) {
  wgmma_block<kTokens, kMaxGroups, kKGroups, kMulticast, false, kWide>(activations, p,
                                                                       cuda::cluster_index());
}

// The first blocks have the first tokens.
template <int kTokens, int kRestTokens, int kMaxGroups, Wide kWide>
__global__ void __launch_bounds__(kMaxGroups * 128 + 128, 1)
    wgmma_gemm_mixed(const __grid_constant__ CUtensorMap activations,
                     const __grid_constant__ CUtensorMap rest_activations, const WgmmaParams p,
                     const WgmmaParams rest) {
  const int block = static_cast<int>(blockIdx.x), others = block - p.work.workers;
  if (others < 0) {
    wgmma_block<kTokens, kMaxGroups, 1, false, true, kWide>(activations, p, block);
  } else {
    wgmma_block<kRestTokens, kMaxGroups, 1, false, true, kWide>(rest_activations, rest, others);
  }
}

namespace {

constexpr int kMinStages = 3;
constexpr int kMaxCluster = 8;
// Of a shared tile's tokens each of two blocks copies half, in eights: the swizzle repeats then.
constexpr int kCopiedByTwo = 16;

using Kernel = void (*)(CUtensorMap, WgmmaParams);
struct Variant {
  WgmmaKernel kernel;
  Kernel bf16, f16;
};
template <int kTokens, int kMaxGroups, int kKGroups = 1, bool kMulticast = false>
constexpr Variant variant() {
  return {{kTokens, kMaxGroups, kKGroups, kMulticast},
          wgmma_gemm<kTokens, kMaxGroups, kKGroups, kMulticast, Wide::kBF16>,
          wgmma_gemm<kTokens, kMaxGroups, kKGroups, kMulticast, Wide::kF16>};
}
// In the order of preference: the first with room for a config's groups takes it.
const Variant kVariants[] = {
    variant<16, 5>(),           variant<24, 5>(),           variant<32, 5>(),
    variant<40, 5>(),           variant<48, 5>(),           variant<56, 4>(),
    variant<64, 2>(),           variant<64, 4>(),           variant<64, 5>(),
    variant<72, 2>(),           variant<72, 4>(),           variant<80, 2>(),
    variant<80, 4>(),           variant<88, 2>(),           variant<88, 4>(),
    variant<96, 2>(),           variant<96, 3>(),           variant<96, 4>(),
    variant<104, 2>(),          variant<104, 3>(),          variant<104, 4>(),
    variant<112, 2>(),          variant<112, 3>(),          variant<112, 4>(),
    variant<120, 2>(),          variant<120, 3>(),          variant<120, 4>(),
    variant<128, 2>(),          variant<128, 3>(),          variant<128, 4>(),
    variant<160, 3>(),          variant<256, 2>(),          variant<16, 4, 2>(),
    variant<24, 4, 2>(),        variant<32, 4, 2>(),        variant<40, 4, 2>(),
    variant<48, 4, 2>(),        variant<56, 2, 2>(),        variant<64, 2, 2>(),
    variant<64, 2, 1, true>(),  variant<128, 4, 1, true>(), variant<192, 2, 1, true>(),
    variant<256, 2, 1, true>(),
};

using MixedKernel = void (*)(CUtensorMap, CUtensorMap, WgmmaParams, WgmmaParams);
struct MixedVariant {
  WgmmaConfig config;
  MixedKernel bf16, f16;
};
template <int kTokens, int kGroups, int kRestTokens, int kRestGroups>
constexpr MixedVariant mixed() {
  constexpr int kMost = std::max(kGroups, kRestGroups);
  static_assert(is_lowered(kMost));  // warpgroups that a tile has no rows for
  return {{kTokens, kGroups, 1, 1, 1, false, kRestTokens, kRestGroups},
          wgmma_gemm_mixed<kTokens, kRestTokens, kMost, Wide::kBF16>,
          wgmma_gemm_mixed<kTokens, kRestTokens, kMost, Wide::kF16>};
}
// What two of them take together on an H200, and what the best of the others took, in us:
const MixedVariant kMixedVariants[] = {
    mixed<144, 3, 224, 2>(),  // 7168 x 2048, m = 512: 20.5, 22.4; 7168 x 18432: 161, 170
    mixed<112, 2, 72, 3>(),   // 7168 x 2048, m = 256: 12.5, 12.7
    mixed<128, 4, 64, 4>(),   // 7168 x 2048, m = 576: 22.8, 26.3
    mixed<112, 3, 80, 4>(),   // 7168 x 2048, m = 384: 16.8, 17.7; 14336 x 4096, 192: 30.9, 32.3
    mixed<168, 2, 104, 3>(),  // 2560 x 9728, m = 1024: 65, 69; 3584 x 18944, 768: 126, 134
};

const Variant* find(const WgmmaConfig& c) {
  for (const Variant& v : kVariants) {
    if (v.kernel.tokens == c.tokens && v.kernel.k_groups == c.k_groups &&
        c.groups * c.k_groups <= v.kernel.max_groups &&
        v.kernel.multicast == (c.cluster != c.split)) {
      return &v;
    }
  }
  return nullptr;
}

const MixedVariant& find_mixed(const WgmmaConfig& c) {
  return *std::ranges::find_if(kMixedVariants, [&](const MixedVariant& v) {
    return v.config.tokens == c.tokens && v.config.rest_tokens == c.rest_tokens;
  });
}

// What a launch's flags say, so that none has to clear them before: no other launch has said it,
// and whoever waited for a flag clears it for the next replay of a graph. A kernel that clears
// took 1.6 us.
uint64_t next_launch() {
  static std::atomic<uint64_t> next{uint64_t{std::random_device{}()} << 32 | 1};
  return next.fetch_add(1, std::memory_order_relaxed);
}
constexpr int64_t kMaxStreamBlocks = 1 << 20;  // of k: the stream is counted in 32 bits
constexpr size_t flag_bytes(size_t sms) { return (sms * sizeof(uint64_t) + 255) / 256 * 256; }

// A block's multiplying warpgroups, and the most of its kernel.
int warpgroups(const WgmmaConfig& c) {
  return c.mixed() ? std::max(c.groups, c.rest_groups) : c.groups * c.k_groups;
}
int max_groups(const WgmmaConfig& c) {
  return c.mixed() ? warpgroups(c) : find(c)->kernel.max_groups;
}

WgmmaShared shared_memory(const WgmmaConfig& c, int stages) {
  return {c.tokens,      c.groups,
          warpgroups(c), staged_units(c.tokens, max_groups(c)),
          stages,        c.k_groups * sums_bytes(c.tokens, c.groups, c.split * c.k_groups)};
}

// What the blocks of one kind of tiles are told.
struct Part {
  WgmmaParams p;
  size_t shared_bytes = 0;
  CUtensorMap activations = {};
};
Part part_of(const WgmmaParams& params, const uint16_t* a, int64_t a_row_bytes,
             const WgmmaConfig& c, const WgmmaTiles& cut, int stream_tiles, int workers,
             const Stream& stream) {
  Part part = {params};
  WgmmaParams& p = part.p;
  p.groups = c.groups;
  p.stages = wgmma_stages(c);
  p.work = WgmmaWork(cut, static_cast<int>(k_blocks(p.k)), stream_tiles, c.split, workers);
  p.own_units = own_units(c.tokens, c.split * c.k_groups);
  p.plain = p.wide_output && p.out.c == nullptr && p.out.bias == nullptr && !p.out.silu_mul &&
            p.out.type == OutputType::kBF16 && p.n % 8 == 0;
  const WgmmaShared at = shared_memory(c, p.stages);
  p.slot_weights = at.slot_weights;
  p.sums_at = at.sums;
  p.sum_bytes = at.units - at.sums;
  part.shared_bytes = at.bytes;
  if (stream.load) {
    cuda::load_tensor_map_encoder();
    return part;
  }
  const bool multicast = c.cluster != c.split;
  const bool pairs = !multicast && copies_pairs(c.tokens, cut.tile_tokens, p.k);
  part.activations = (pairs ? cuda::tensor_map_16bit_pairs : cuda::tensor_map_16bit)(
      a, p.m, p.k, a_row_bytes, cut.tile_tokens / (multicast ? 2 : 1));
  return part;
}

void launch_mixed(const WgmmaParams& params, const uint16_t* a, int64_t a_row_bytes, Wide type,
                  const WgmmaConfig& c, int sms, Stream stream) {
  const WgmmaConfig others = wgmma_rest(c);
  const WgmmaMix mix = wgmma_mix(c, params.m, params.n, sms);
  WgmmaParams p = params, rest = params;
  p.m = mix.m;
  // Where there is no rest its blocks are not launched, but the copy engine wants a tensor.
  rest.m = std::max(1, params.m - mix.m);
  const int64_t first = params.m - rest.m;
  rest.out = params.out.from(first);
  const auto part = [&](const WgmmaParams& of, int64_t from, const WgmmaConfig& kind, int workers) {
    const WgmmaTiles cut = wgmma_tiles(kind, of.m, of.n, std::max(1, workers));
    return part_of(of, a + from * a_row_bytes / 2, a_row_bytes, kind, cut, 0, workers, stream);
  };
  const Part own = part(p, 0, c, mix.workers), theirs = part(rest, first, others, mix.rest_workers);
  const MixedVariant& v = find_mixed(c);
  cuda::launch({.grid = static_cast<unsigned>(mix.workers + mix.rest_workers),
                .block = static_cast<unsigned>(warpgroups(c) * 128 + 128),
                .shared_bytes = std::max(own.shared_bytes, theirs.shared_bytes),
                .pdl = stream.pdl,
                .stream = stream},
               "sm90_fp4_wgmma_gemm", type == Wide::kF16 ? v.f16 : v.bf16, own.activations,
               theirs.activations, own.p, theirs.p);
}

}  // namespace

std::span<const WgmmaKernel> wgmma_kernels() {
  static const auto kernels = [] {
    std::array<WgmmaKernel, std::size(kVariants)> all;
    for (size_t i = 0; i < all.size(); ++i) all[i] = kVariants[i].kernel;
    return all;
  }();
  return kernels;
}

std::span<const WgmmaConfig> wgmma_mixes() {
  static const auto mixes = [] {
    std::array<WgmmaConfig, std::size(kMixedVariants)> all;
    for (size_t i = 0; i < all.size(); ++i) all[i] = kMixedVariants[i].config;
    return all;
  }();
  return mixes;
}

int wgmma_stages(const WgmmaConfig& c) {
  const int none = shared_memory(c, 0).bytes, slot = shared_memory(c, 1).bytes - none;
  // Each slot is always the same k group's, or one that is ahead would take what the slot had for
  // another as what it waits for.
  return std::min(max_stages(c.tokens), (kSharedLimit - none) / slot) / c.k_groups * c.k_groups;
}

bool wgmma_fits(const WgmmaConfig& c, int64_t k) {
  if (c.mixed()) return std::ranges::find(wgmma_mixes(), c) != wgmma_mixes().end();
  const bool multicast = c.cluster != c.split;
  const Variant* v = find(c);
  return v != nullptr && c.groups > 0 && c.split > 0 && c.cluster <= kMaxCluster &&
         (!multicast || (c.split == 1 && c.cluster == 2)) &&
         (!c.stream || (c.split * c.k_groups == 1 && is_streamed(c.tokens, v->kernel.max_groups) &&
                        k_blocks(k) <= kMaxStreamBlocks)) &&
         (c.split * c.k_groups == 1 || is_shared(c.tokens, v->kernel.max_groups)) &&
         c.cluster / c.split * c.groups * kGroupBlocks <= kTailBytes / kBlockBytes &&
         k_blocks(k) >= c.split * c.k_groups &&
         // A k group gives a slot back when its next one is there.
         wgmma_stages(c) >= std::max(kMinStages, 2 * c.k_groups);
}

WgmmaConfig wgmma_rest(const WgmmaConfig& c) {
  WgmmaConfig rest = c;
  std::swap(rest.tokens, rest.rest_tokens);
  std::swap(rest.groups, rest.rest_groups);
  return rest;
}

WgmmaMix wgmma_mix(const WgmmaConfig& c, int64_t m, int64_t n, int blocks) {
  return {static_cast<int>(m),
          static_cast<int>(n),
          {c.tokens, c.groups},
          {c.rest_tokens, c.rest_groups},
          blocks};
}

WgmmaTiles wgmma_tiles(const WgmmaConfig& c, int64_t m, int64_t n, int workers) {
  const int pair = c.cluster / c.split;
  return {static_cast<int>(m),
          static_cast<int>(n),
          c.tokens,
          pair == 2 ? kCopiedByTwo : 1,
          c.groups * pair,
          pair,
          workers,
          c.split * c.k_groups == 1 && !c.stream && is_lowered(max_groups(c))};
}

size_t wgmma_workspace_bytes(const WgmmaConfig& c, int num_sms) {
  if (!c.stream) return 0;
  const auto sms = static_cast<size_t>(num_sms);
  return flag_bytes(sms) + sms * c.groups * kGroupRows * c.tokens * sizeof(float);
}

void launch_wgmma(const WgmmaParams& params, const uint16_t* a, int64_t a_row_bytes, Wide type,
                  const WgmmaConfig& c, void* workspace, Stream stream) {
  int sms = 0;
  NIBBLE_CUDA_CHECK(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, stream.index));
  if (c.mixed()) return launch_mixed(params, a, a_row_bytes, type, c, sms, stream);
  WgmmaParams p = params;
  const int resident = std::max(1, sms / c.cluster);
  const WgmmaTiles cut = wgmma_tiles(c, p.m, p.n, resident);
  const int tiles = cut.tiles();
  int clusters = c.split * c.k_groups > 1 ? tiles : std::min(tiles, resident);
  int stream_tiles = 0;
  if (c.stream) {
    clusters = static_cast<int>(std::min(int64_t{resident}, tiles * k_blocks(p.k)));
    // A tile or two of everybody's share: pieces of less than one would cost more to add up.
    const int rest = tiles % clusters;
    stream_tiles = tiles < clusters ? tiles : rest == 0 ? 0 : rest + clusters;
    p.flags = static_cast<uint64_t*>(workspace);
    p.parts = reinterpret_cast<float*>(static_cast<uint8_t*>(workspace) + flag_bytes(sms));
    p.launch = next_launch();
  }
  const Part part = part_of(p, a, a_row_bytes, c, cut, stream_tiles, clusters, stream);
  const Variant& v = *find(c);
  cuda::launch({.grid = static_cast<unsigned>(clusters * c.cluster),
                .block = static_cast<unsigned>(warpgroups(c) * 128 + 128),
                .shared_bytes = part.shared_bytes,
                .cluster = static_cast<unsigned>(c.cluster),
                .pdl = stream.pdl,
                .stream = stream},
               "sm90_fp4_wgmma_gemm", type == Wide::kF16 ? v.f16 : v.bf16, part.activations,
               part.p);
}

}  // namespace nibble::sm90
