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
    variant<16, 5>(),           variant<32, 5>(),           variant<48, 5>(),
    variant<64, 2>(),           variant<64, 4>(),           variant<64, 5>(),
    variant<80, 2>(),           variant<80, 4>(),           variant<96, 2>(),
    variant<96, 3>(),           variant<96, 4>(),           variant<104, 2>(),
    variant<104, 3>(),          variant<104, 4>(),          variant<112, 2>(),
    variant<112, 3>(),          variant<112, 4>(),          variant<120, 2>(),
    variant<120, 3>(),          variant<120, 4>(),          variant<128, 2>(),
    variant<128, 3>(),          variant<128, 4>(),          variant<16, 4, 2>(),
    variant<32, 4, 2>(),        variant<48, 4, 2>(),        variant<64, 2, 2>(),
    variant<64, 2, 1, true>(),  variant<128, 4, 1, true>(), variant<192, 2, 1, true>(),
    variant<256, 2, 1, true>(),
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

// What a launch's flags say, so that none has to clear them before: no other launch has said it,
// and whoever waited for a flag clears it for the next replay of a graph. A kernel that clears
// took 1.6 us.
uint64_t next_launch() {
  static std::atomic<uint64_t> next{uint64_t{std::random_device{}()} << 32 | 1};
  return next.fetch_add(1, std::memory_order_relaxed);
}
constexpr int64_t kMaxStreamBlocks = 1 << 20;  // of k: the stream is counted in 32 bits
constexpr size_t flag_bytes(size_t sms) { return (sms * sizeof(uint64_t) + 255) / 256 * 256; }

WgmmaShared shared_memory(const WgmmaConfig& c, int stages) {
  return {c.tokens,
          c.groups,
          c.groups * c.k_groups,
          staged_units(c.tokens, find(c)->kernel.max_groups),
          stages,
          c.k_groups * sums_bytes(c.tokens, c.groups, c.split * c.k_groups)};
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

int wgmma_stages(const WgmmaConfig& c) {
  const int none = shared_memory(c, 0).bytes, slot = shared_memory(c, 1).bytes - none;
  // Each slot is always the same k group's, or one that is ahead would take what the slot had for
  // another as what it waits for.
  return std::min(max_stages(c.tokens), (kSharedLimit - none) / slot) / c.k_groups * c.k_groups;
}

bool wgmma_fits(const WgmmaConfig& c, int64_t k) {
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

WgmmaTiles wgmma_tiles(const WgmmaConfig& c, int64_t m, int64_t n, int workers) {
  const int pair = c.cluster / c.split;
  return {static_cast<int>(m),
          static_cast<int>(n),
          c.tokens,
          pair == 2 ? kCopiedByTwo : 1,
          c.groups * pair,
          pair,
          workers,
          c.split * c.k_groups == 1 && !c.stream && is_lowered(find(c)->kernel.max_groups)};
}

size_t wgmma_workspace_bytes(const WgmmaConfig& c, int num_sms) {
  if (!c.stream) return 0;
  const auto sms = static_cast<size_t>(num_sms);
  return flag_bytes(sms) + sms * c.groups * kGroupRows * c.tokens * sizeof(float);
}

void launch_wgmma(const WgmmaParams& params, const uint16_t* a, int64_t a_row_bytes, Wide type,
                  const WgmmaConfig& c, void* workspace, Stream stream) {
  WgmmaParams p = params;
  p.groups = c.groups;
  p.stages = wgmma_stages(c);
  const bool multicast = c.cluster != c.split;
  int sms = 0;
  NIBBLE_CUDA_CHECK(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, stream.index));
  const int resident = std::max(1, sms / c.cluster);
  const WgmmaTiles cut = wgmma_tiles(c, p.m, p.n, resident);
  const int tiles = cut.tiles();
  const int parts = c.split * c.k_groups;
  int clusters = parts > 1 ? tiles : std::min(tiles, resident);
  const auto all_k = static_cast<int>(k_blocks(p.k));
  int stream_tiles = 0;
  if (c.stream) {
    clusters = static_cast<int>(std::min(int64_t{resident}, int64_t{tiles} * all_k));
    // A tile or two of everybody's share: pieces of less than one would cost more to add up.
    const int rest = tiles % clusters;
    stream_tiles = tiles < clusters ? tiles : rest == 0 ? 0 : rest + clusters;
    p.flags = static_cast<uint64_t*>(workspace);
    p.parts = reinterpret_cast<float*>(static_cast<uint8_t*>(workspace) + flag_bytes(sms));
    p.launch = next_launch();
  }
  p.work = WgmmaWork(cut, all_k, stream_tiles, c.split, clusters);
  p.own_units = own_units(c.tokens, parts);
  p.plain = p.wide_output && p.out.c == nullptr && p.out.bias == nullptr && !p.out.silu_mul &&
            p.out.type == OutputType::kBF16 && p.n % 8 == 0;
  const WgmmaShared at = shared_memory(c, p.stages);
  p.slot_weights = at.slot_weights;
  p.sums_at = at.sums;
  p.sum_bytes = at.units - at.sums;
  const Variant& v = *find(c);
  CUtensorMap activations = {};
  if (stream.load) {
    cuda::load_tensor_map_encoder();
  } else {
    const bool pairs = !multicast && copies_pairs(c.tokens, cut.tile_tokens, p.k);
    activations = (pairs ? cuda::tensor_map_16bit_pairs : cuda::tensor_map_16bit)(
        a, p.m, p.k, a_row_bytes, cut.tile_tokens / (multicast ? 2 : 1));
  }
  cuda::launch({.grid = static_cast<unsigned>(clusters * c.cluster),
                .block = static_cast<unsigned>(c.groups * c.k_groups * 128 + 128),
                .shared_bytes = static_cast<size_t>(at.bytes),
                .cluster = static_cast<unsigned>(c.cluster),
                .pdl = stream.pdl,
                .stream = stream},
               "sm90_fp4_wgmma_gemm", type == Wide::kF16 ? v.f16 : v.bf16, activations, p);
}

}  // namespace nibble::sm90
