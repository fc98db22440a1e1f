// The prefill GEMM's table entry: which cuts of the work there are.
#include "kernels/sm90/gemm_wgmma.h"

#include <algorithm>
#include <iterator>
#include <vector>

#include "kernels/sm90/blocks.h"
#include "kernels/sm90/gemm.h"
#include "kernels/sm90/gemm_operands.h"
#include "kernels/sm90/gemm_wgmma_cost.h"

namespace nibble::sm90 {
namespace {

constexpr int kSplits[] = {1, 2, 3, 4, 5};  // more never won

// A configuration of the table: tile_m tokens x tile_n rows a block, tile_k of k at a time, and k
// split over split_k blocks, or clusters of two that share their tokens; a stream of tiles has no
// split_k. The last tokens' tiles may be rest_m x rest_n.
KernelConfig to_table(const WgmmaConfig& c) {
  return {.tile_m = c.tokens,
          .tile_n = c.groups * kGroupRows,
          .tile_k = c.k_groups * kBlockK,
          .stages = wgmma_stages(c),
          .split_k = c.stream ? 0 : c.split,
          .cluster = c.cluster,
          .rest_m = c.rest_tokens,
          .rest_n = c.rest_groups * kGroupRows};
}
WgmmaConfig from_table(const KernelConfig& c) {
  return {.tokens = c.tile_m,
          .groups = c.tile_n / kGroupRows,
          .k_groups = c.tile_k / kBlockK,
          .split = std::max(1, c.split_k),
          .cluster = c.cluster,
          .stream = c.split_k == 0,
          .rest_tokens = c.rest_m,
          .rest_groups = c.rest_n / kGroupRows};
}

std::vector<WgmmaConfig> all_configs() {
  std::vector<WgmmaConfig> all;
  for (const WgmmaKernel& kernel : kWgmmaKernels) {
    const int pair = kernel.multicast ? 2 : 1;
    for (int groups = 1; groups * kernel.k_groups <= kernel.max_groups; ++groups) {
      const bool known = std::ranges::any_of(all, [&](const WgmmaConfig& c) {
        return c.tokens == kernel.tokens && c.groups == groups && c.k_groups == kernel.k_groups &&
               pair == 1;
      });
      // 64 rows alone read too many activations for a GEMM that is cut for its length: up to half
      // of the time lost. Over 128 tokens alone lose a tenth so, and 64 rows of them up to 13 %.
      const bool wide = kernel.tokens > 128 && pair == 1;
      if (known || (wide && groups == 1)) continue;
      if (groups * pair > 1 && kernel.k_groups == 1 && !wide) {
        all.push_back({kernel.tokens, groups, 1, 1, pair, true});
      }
      for (const int split : kSplits) {
        if (split > 1 && pair > 1) continue;
        all.push_back({kernel.tokens, groups, kernel.k_groups, split, split * pair, false});
      }
    }
  }
  std::ranges::transform(kWgmmaMixes, std::back_inserter(all), wgmma_mixed);
  return all;
}

// Whether fewer tokens a tile are enough for the same cut: the copy engine makes those that a tile
// lacks as zeros, and they are multiplied as well.
bool too_wide(const WgmmaConfig& c, const GemmDesc& d) {
  if (c.mixed()) return false;
  const int64_t tokens = ceil_div(d.m, ceil_div(d.m, c.tokens));
  return std::ranges::any_of(kWgmmaKernels, [&](const WgmmaKernel& kernel) {
    WgmmaConfig narrower = c;
    narrower.tokens = kernel.tokens;
    return kernel.tokens < c.tokens && kernel.tokens >= tokens && wgmma_fits(narrower, d.k);
  });
}

// The span holds until the thread's next call.
std::span<const KernelConfig> candidates(const GemmDesc& d, const DeviceInfo& device) {
  static const std::vector<WgmmaConfig> all = all_configs();
  thread_local std::vector<KernelConfig> fitting;
  fitting.clear();
  constexpr int kOneTile = 64;  // up to so many tokens, reading the weights for two tiles lost
  const int narrowest = all.front().tokens;
  for (const WgmmaConfig& c : all) {
    const bool too_many = c.tokens > narrowest && c.tokens / 2 >= d.m;
    const bool too_few = c.tokens < std::min<int64_t>(d.m, kOneTile);
    const int resident = resident_clusters(c.cluster, device);
    const int tiles = wgmma_tiles(c, d.m, d.n, resident).tiles();
    // A cluster that shares a tile starts anew for the next one, so a second wave always lost.
    const bool too_split = c.split * c.k_groups > 1 && tiles > resident;
    const bool even = c.stream && tiles % resident == 0;
    // Two kinds of tiles mend what one kind leaves over. Of many tiles that is little.
    const bool one_kind = c.mixed() && (d.m > kTokenGroup * (c.tokens + c.rest_tokens) ||
                                        wgmma_mix(c, d.m, d.n, device.num_sms).rest_workers == 0);
    if (!too_many && !too_few && !too_split && !even && !one_kind && wgmma_fits(c, d.k) &&
        !too_wide(c, d)) {
      fitting.push_back(to_table(c));
    }
  }
  return fitting;
}

double estimate_us(const GemmDesc& d, const KernelConfig& config, const DeviceInfo& device) {
  return wgmma_us(from_table(config), d, device);
}

Support can_implement(const GemmDesc& d, const DeviceInfo& device) {
  if (const Support s = takes_operands(d, device); !s) return s;
  constexpr int64_t kMaxTiles = int64_t{1} << 27;  // times a cluster's blocks, in 32 bits
  if (ceil_div(d.m, kWgmmaKernels[0].tokens) * ceil_div(d.n, kGroupRows) > kMaxTiles) {
    return Support::no("m = {} and n = {} give more than {} tiles", d.m, d.n, kMaxTiles);
  }
  return Support::yes();
}

constexpr uintptr_t kWideBytes = 16;  // what output is written in where it is aligned so
bool is_wide(const void* data, int64_t stride, size_t element) {
  return (reinterpret_cast<uintptr_t>(data) | stride * element) % kWideBytes == 0;
}

Staged staged_of(const Output& out, Wide type, bool wide_output) {
  const OutputType own = type == Wide::kF16 ? OutputType::kF16 : OutputType::kBF16;
  const bool add = out.c != nullptr;
  if (!wide_output || out.type != own || out.columns % 8 != 0 || (add && out.silu_mul)) {
    return Staged::kNot;
  }
  return add ? Staged::kAddC : out.silu_mul ? Staged::kSiluMul : Staged::kPlain;
}

size_t workspace_bytes(const GemmDesc& d, const KernelConfig& config, const DeviceInfo& device) {
  return activation_bytes(d) + wgmma_workspace_bytes(from_table(config), device.num_sms);
}

void launch(const GemmArgs& args, const KernelConfig& config, Stream stream) {
  check_operands(args, stream);
  const GemmDesc& d = args.desc;
  const WgmmaConfig c = from_table(config);
  const size_t element = size_of(d.d_type);
  const Activations a = prepare_activations(args, stream);
  stream.pdl |= a.own_kernel;
  WgmmaParams p = {};
  p.weights = args.b->codes;
  p.row_alpha = args.b->row_alpha;
  p.out = output_of(args, a);
  p.wide_output = is_wide(p.out.d, p.out.d_stride, element) &&
                  (p.out.c == nullptr || is_wide(p.out.c, p.out.c_stride, element));
  p.staged = staged_of(p.out, a.type, p.wide_output);
  p.m = static_cast<int>(d.m);
  p.n = static_cast<int>(d.n);
  p.k = static_cast<int>(d.k);
  // One row may have any stride; the copy engine wants a multiple of 16 bytes all the same.
  const int64_t a_stride = d.m == 1 ? (d.k + 7) / 8 * 8 : a.stride;
  launch_wgmma(p, a.data, a_stride * 2, a.type, c,
               static_cast<uint8_t*>(args.workspace) + activation_bytes(d), stream);
}

void load(const GemmDesc& d, const KernelConfig& config, Stream stream) {
  launch(without_memory(d), config, stream);
}

}  // namespace

const GemmImpl kWgmmaGemm = {.name = "sm90_fp4_wgmma_gemm",
                             .can_implement = can_implement,
                             .launch = launch,
                             .candidates = candidates,
                             .estimate_us = estimate_us,
                             .workspace_bytes = workspace_bytes,
                             .load = load};

}  // namespace nibble::sm90
