#include "base/launch.h"

#include <fmt/format.h>

#include <set>
#include <utility>

#include "base/check.h"
#include "base/cuda.h"
#include "base/cuda_check.h"
#include "base/graph_launch.h"

namespace nibble::cuda {
namespace {

// Dynamic ones. 48 KiB need no asking, but of static ones too: no kernel has 16 KiB of these.
constexpr size_t kUnaskedSharedBytes = 32 * 1024;
constexpr unsigned kPortableCluster = 8;  // larger ones must be asked for

// Once for each thread: setting the limit anew takes 0.4 us a launch. All that there is, so that no
// thread lowers what another counts on.
void allow_all_shared_memory(const void* kernel, const char* name, int device) {
  thread_local std::set<std::pair<const void*, int>> done;
  if (done.contains({kernel, device})) return;
  cudaFuncAttributes attributes;
  check(cudaFuncGetAttributes(&attributes, kernel), name);
  int limit = 0;
  check(cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), name);
  limit -= static_cast<int>(attributes.sharedSizeBytes);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, limit), name);
  done.emplace(kernel, device);
}

}  // namespace

void launch_kernel(const LaunchConfig& config, const char* name, const void* kernel,
                   void** params) {
  if (const cudaError_t earlier = cudaGetLastError(); earlier != cudaSuccess) {
    fail_cuda(fmt::format("{}: not launched, an earlier CUDA call had failed", name).c_str(),
              earlier);
  }
  const DeviceScope scope(config.stream.index);
  if (config.shared_bytes > kUnaskedSharedBytes || config.stream.load) {
    allow_all_shared_memory(kernel, name, config.stream.index);
  }
  const unsigned cluster = config.cluster.x * config.cluster.y * config.cluster.z;
  if (cluster > kPortableCluster) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1), name);
  }
  if (config.stream.load) return prepare_graph(config, kernel, params);
  if (launch_as_graph(config, name, kernel, params)) return;
  cudaLaunchAttribute attributes[2];
  unsigned count = 0;
  if (cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count].val.clusterDim.x = config.cluster.x;
    attributes[count].val.clusterDim.y = config.cluster.y;
    attributes[count].val.clusterDim.z = config.cluster.z;
    ++count;
  }
  if (config.pdl) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count].val.programmaticStreamSerializationAllowed = 1;
    ++count;
  }
  cudaLaunchConfig_t launch = {};
  launch.gridDim = config.grid;
  launch.blockDim = config.block;
  launch.dynamicSmemBytes = config.shared_bytes;
  launch.stream = static_cast<cudaStream_t>(config.stream.cuda);
  launch.attrs = attributes;
  launch.numAttrs = count;
  check(cudaLaunchKernelExC(&launch, kernel, params), name);
}

}  // namespace nibble::cuda
