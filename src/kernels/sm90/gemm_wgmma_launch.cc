// The wgmma GEMM's host side: a config's kernel, its shared memory, what its blocks are told.
#include <algorithm>
#include <atomic>
#include <random>

#include "base/cuda.h"
#include "base/launch.h"
#include "kernels/cuda/tensor_map.h"
#include "kernels/sm90/gemm_wgmma.h"
#include "kernels/sm90/gemm_wgmma_kernels.h"

namespace nibble::sm90 {
namespace {

constexpr int kMinStages = 3;
constexpr int kMaxCluster = 8;
// Of a shared tile's tokens each of two blocks copies half, in eights: the swizzle repeats then.
constexpr int kCopiedByTwo = 16;

const WgmmaKernel* find(const WgmmaConfig& c) {
  const auto found = std::ranges::find_if(kWgmmaKernels, [&](const WgmmaKernel& kernel) {
    return kernel.tokens == c.tokens && kernel.k_groups == c.k_groups &&
           c.groups * c.k_groups <= kernel.max_groups && kernel.multicast == (c.cluster != c.split);
  });
  return found == kWgmmaKernels.end() ? nullptr : &*found;
}

const WgmmaMixKernel* find_mixed(const WgmmaConfig& c) {
  const auto found = std::ranges::find(kWgmmaMixes, c, wgmma_mixed);
  return found == kWgmmaMixes.end() ? nullptr : &*found;
}

const WgmmaFunctions& functions(Wide type) { return type == Wide::kF16 ? kWgmmaF16 : kWgmmaBF16; }

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
int max_groups(const WgmmaConfig& c) { return c.mixed() ? warpgroups(c) : find(c)->max_groups; }

// Below, `most` is max_groups(c), which a launch looks up once: five times took it a fifth of what
// it does by itself.
WgmmaShared shared_memory(const WgmmaConfig& c, int most, int stages) {
  return {c.tokens,      c.groups,
          warpgroups(c), staged_units(c.tokens, most),
          stages,        c.k_groups * sums_bytes(c.tokens, c.groups, c.split * c.k_groups)};
}

int stages_of(const WgmmaConfig& c, int most) {
  const int none = shared_memory(c, most, 0).bytes, slot = shared_memory(c, most, 1).bytes - none;
  // Each slot is always the same k group's, or one that is ahead would take what the slot had for
  // another as what it waits for.
  return std::min(max_stages(c.tokens), (kSharedLimit - none) / slot) / c.k_groups * c.k_groups;
}

WgmmaTiles tiles_of(const WgmmaConfig& c, int most, int64_t m, int64_t n, int workers) {
  const int pair = c.cluster / c.split;
  return {static_cast<int>(m),
          static_cast<int>(n),
          c.tokens,
          pair == 2 ? kCopiedByTwo : 1,
          c.groups * pair,
          pair,
          workers,
          c.split * c.k_groups == 1 && !c.stream && is_lowered(most)};
}

// What the blocks of one kind of tiles are told.
struct Part {
  WgmmaParams p;
  size_t shared_bytes = 0;
  CUtensorMap activations = {};
};
Part part_of(const WgmmaParams& params, const uint16_t* a, int64_t a_row_bytes,
             const WgmmaConfig& c, int most, const WgmmaTiles& cut, int stream_tiles, int workers,
             const Stream& stream) {
  Part part = {params};
  WgmmaParams& p = part.p;
  p.groups = c.groups;
  p.stages = stages_of(c, most);
  p.work = WgmmaWork(cut, static_cast<int>(k_blocks(p.k)), stream_tiles, c.split, workers);
  p.own_units = own_units(c.tokens, c.split * c.k_groups);
  const WgmmaShared at = shared_memory(c, most, p.stages);
  p.slot_weights = at.slot_weights;
  p.sums_at = at.sums;
  p.sum_bytes = at.units - at.sums;
  part.shared_bytes = at.bytes;
  if (stream.load) return part;
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
  const int most = warpgroups(c);
  const auto part = [&](const WgmmaParams& of, int64_t from, const WgmmaConfig& kind, int workers) {
    const WgmmaTiles cut = tiles_of(kind, most, of.m, of.n, std::max(1, workers));
    return part_of(of, a + from * a_row_bytes / 2, a_row_bytes, kind, most, cut, 0, workers,
                   stream);
  };
  const Part own = part(p, 0, c, mix.workers), theirs = part(rest, first, others, mix.rest_workers);
  cuda::launch({.grid = static_cast<unsigned>(mix.workers + mix.rest_workers),
                .block = static_cast<unsigned>(most * 128 + 128),
                .shared_bytes = std::max(own.shared_bytes, theirs.shared_bytes),
                .pdl = stream.pdl,
                .stream = stream},
               "sm90_fp4_wgmma_gemm", functions(type).mixes[find_mixed(c) - kWgmmaMixes.data()],
               own.activations, theirs.activations, own.p, theirs.p);
}

}  // namespace

WgmmaConfig wgmma_mixed(const WgmmaMixKernel& kernel) {
  return {.tokens = kernel.own.tokens,
          .groups = kernel.own.groups,
          .rest_tokens = kernel.rest.tokens,
          .rest_groups = kernel.rest.groups};
}

int wgmma_stages(const WgmmaConfig& c) { return stages_of(c, max_groups(c)); }

bool wgmma_fits(const WgmmaConfig& c, int64_t k) {
  if (c.mixed()) return find_mixed(c) != nullptr;
  const bool multicast = c.cluster != c.split;
  const WgmmaKernel* kernel = find(c);
  return kernel != nullptr && c.groups > 0 && c.split > 0 && c.cluster <= kMaxCluster &&
         (!multicast || (c.split == 1 && c.cluster == 2)) &&
         (!c.stream || (c.split * c.k_groups == 1 && is_streamed(c.tokens, kernel->max_groups) &&
                        k_blocks(k) <= kMaxStreamBlocks)) &&
         (c.split * c.k_groups == 1 || is_shared(c.tokens, kernel->max_groups)) &&
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
  return tiles_of(c, max_groups(c), m, n, workers);
}

size_t wgmma_workspace_bytes(const WgmmaConfig& c, int num_sms) {
  if (!c.stream) return 0;
  const auto sms = static_cast<size_t>(num_sms);
  return flag_bytes(sms) + sms * c.groups * kGroupRows * c.tokens * sizeof(float);
}

void launch_wgmma(const WgmmaParams& params, const uint16_t* a, int64_t a_row_bytes, Wide type,
                  const WgmmaConfig& c, void* workspace, Stream stream) {
  const cuda::DeviceScope scope(stream.index);  // the tensor maps want the thread to have a context
  const int sms = cuda::num_sms(stream.index);
  if (c.mixed()) return launch_mixed(params, a, a_row_bytes, type, c, sms, stream);
  WgmmaParams p = params;
  const int resident = std::max(1, sms / c.cluster);
  const WgmmaKernel* kernel = find(c);
  const WgmmaTiles cut = tiles_of(c, kernel->max_groups, p.m, p.n, resident);
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
  const Part part =
      part_of(p, a, a_row_bytes, c, kernel->max_groups, cut, stream_tiles, clusters, stream);
  cuda::launch({.grid = static_cast<unsigned>(clusters * c.cluster),
                .block = static_cast<unsigned>(warpgroups(c) * 128 + 128),
                .shared_bytes = part.shared_bytes,
                .cluster = static_cast<unsigned>(c.cluster),
                .pdl = stream.pdl,
                .stream = stream},
               "sm90_fp4_wgmma_gemm", functions(type).kernels[kernel - kWgmmaKernels.data()],
               part.activations, part.p);
}

}  // namespace nibble::sm90
