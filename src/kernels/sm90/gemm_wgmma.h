// sm90_fp4_wgmma_gemm: any number of tokens, for those that the decode GEMM is too small
// for.
#pragma once

#include <cstdint>

#include "kernels/sm90/gemm_params.h"
#include "kernels/sm90/gemm_wgmma_kernels.h"
#include "kernels/sm90/gemm_wgmma_work.h"
#include "kernels/sm90/widen.h"
#include "nibble/device.h"

namespace nibble::sm90 {

// One way to cut the work; see gemm_wgmma.cuh.
struct WgmmaConfig {
  int tokens = 0;    // of a tile, as in kWgmmaKernels
  int groups = 0;    // of 64 rows of a tile: a multiplying warpgroup each,
  int k_groups = 1;  // or two, that take turns at the steps of k
  int split = 1;     // blocks of a cluster that share a tile
  int cluster = 1;   // blocks of a cluster: split, or two for multicast
  // The tiles that don't come out even are cut into equal pieces of k; needs workspace.
  bool stream = false;
  int rest_tokens = 0;  // not 0: the last tokens' tiles are of another size (WgmmaMix),
  int rest_groups = 0;  // and k groups and split are 1

  bool mixed() const { return rest_tokens != 0; }
  bool operator==(const WgmmaConfig&) const = default;
};

// What a kernel of kWgmmaMixes is for.
WgmmaConfig wgmma_mixed(const WgmmaMixKernel& kernel);

// Slots of the ring that fit.
int wgmma_stages(const WgmmaConfig& config);

// Of a mixed config, the other kind of tiles in front; and who has which of them.
WgmmaConfig wgmma_rest(const WgmmaConfig& config);
WgmmaMix wgmma_mix(const WgmmaConfig& config, int64_t m, int64_t n, int blocks);

// The tiles of all rows and tokens, or pairs of tiles, for so many blocks or clusters; m and n are
// what can_implement takes. Of a mixed config, as if all tokens were of the first kind.
WgmmaTiles wgmma_tiles(const WgmmaConfig& config, int64_t m, int64_t n, int workers);

// 0 where the config does not stream.
size_t wgmma_workspace_bytes(const WgmmaConfig& config, int num_sms);

// Whether a kernel for the config is built and its shares of rows and k come out right.
bool wgmma_fits(const WgmmaConfig& config, int64_t k);

// `params` without the config's part; the config fits. Rows of `a`, of 16-bit `type`, are
// a_row_bytes apart.
// `workspace`: what wgmma_workspace_bytes says, of any content.
void launch_wgmma(const WgmmaParams& params, const uint16_t* a, int64_t a_row_bytes, Wide type,
                  const WgmmaConfig& config, void* workspace, Stream stream);

}  // namespace nibble::sm90
