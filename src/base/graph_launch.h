// Launches of single kernels as CUDA graphs of one node, whose parameters are set anew each time.
// The driver puts such a graph on a stream in half the time of cudaLaunchKernelExC: 1.5 us of the
// host instead of 3.2, and an empty kernel's end is seen after 5.9 us instead of 8.8 (H200, driver
// 580.159.04). The kernels follow one another as fast as before.
#pragma once

#include "base/launch.h"

namespace nibble::cuda {

// Makes the graph of a kernel for the config's stream, so that its first launch need not. (That one
// still takes longer than others: kernel_graphs() of base/cuda.h.)
void prepare_graph(const LaunchConfig& config, const void* kernel, void** params);

// False, with nothing launched, where only cudaLaunchKernelExC will do: for programmatic dependent
// launch, on a stream that is being captured, under NIBBLE_PLAIN_LAUNCH=1 (profilers show a graph
// as one row unless asked for its nodes), and where the runtime refuses. Throws kDevice, naming
// the kernel, for a launch that fails.
bool launch_as_graph(const LaunchConfig& config, const char* name, const void* kernel,
                     void** params);

}  // namespace nibble::cuda
