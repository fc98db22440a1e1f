// What each way to cut the wgmma GEMM's work would take, by a model instead of by running it.
#pragma once

#include "kernels/sm90/gemm_wgmma.h"
#include "nibble/device.h"
#include "ops/gemm.h"

namespace nibble::sm90 {

// How many clusters of one to five blocks the device holds at once: they stay within a GPC. One
// more of them than fit doubles a GEMM's time.
int resident_clusters(int cluster, const DeviceInfo& device);

// Microseconds; of a config that fits.
double wgmma_us(const WgmmaConfig& config, const GemmDesc& desc, const DeviceInfo& device);

}  // namespace nibble::sm90
