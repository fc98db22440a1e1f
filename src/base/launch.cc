#include "base/launch.h"

#include <fmt/format.h>

#include "base/check.h"
#include "base/cuda.h"
#include "base/cuda_check.h"

namespace nibble::cuda {
namespace {

constexpr size_t kDefaultSharedBytes = 48 * 1024;
constexpr unsigned kPortableCluster = 8;  // larger ones must be asked for

}  // namespace

void launch_kernel(const LaunchConfig& config, const char* name, const void* kernel,
                   void** params) {
  if (const cudaError_t earlier = cudaGetLastError(); earlier != cudaSuccess) {
    fail_cuda(fmt::format("{}: not launched, an earlier CUDA call had failed", name).c_str(),
              earlier);
  }
  const DeviceScope scope(config.stream.index);
  if (config.shared_bytes > kDefaultSharedBytes) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(config.shared_bytes)),
          name);
  }
  cudaLaunchAttribute attributes[2];
  unsigned count = 0;
  const unsigned cluster = config.cluster.x * config.cluster.y * config.cluster.z;
  if (cluster > 1) {
    if (cluster > kPortableCluster) {
      check(cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1), name);
    }
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
