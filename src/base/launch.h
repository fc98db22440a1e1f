// The one way to launch a kernel. For .cu files.
//   launch({.grid = 132, .block = 256, .stream = stream}, "quantize", kernel<8>, params, count);
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

#include "nibble/device.h"

namespace nibble::cuda {

struct LaunchConfig {
  dim3 grid = 1;
  dim3 block = 1;
  size_t shared_bytes = 0;  // dynamic; above 32 KiB the kernel's limit is raised
  dim3 cluster = 1;         // blocks of the grid that form one cluster
  // Programmatic dependent launch: the kernel may start before the one in front of it in the stream
  // has ended, and calls griddepcontrol.wait before it touches memory that one writes.
  bool pdl = false;
  Stream stream;
};

// Throws kDevice, naming the kernel, for an error that an earlier call left behind and for a launch
// that is refused. What goes wrong while it runs comes out of synchronize(). The runtime loads a
// kernel when it is first launched, which takes milliseconds; where Stream::load is set, that, its
// limits and the graph that it is launched as (graph_launch.h) are all that is done.
void launch_kernel(const LaunchConfig& config, const char* name, const void* kernel, void** params);

// Arguments are converted to the kernel's parameter types first: the runtime sees addresses only.
template <class... Params, class... Args>
void launch(const LaunchConfig& config, const char* name, void (*kernel)(Params...),
            Args&&... args) {
  static_assert(sizeof...(Params) == sizeof...(Args));
  std::tuple<std::remove_cv_t<Params>...> values(std::forward<Args>(args)...);
  std::apply(
      [&](auto&... value) {
        void* params[] = {&value..., nullptr};
        launch_kernel(config, name, reinterpret_cast<const void*>(kernel), params);
      },
      values);
}

}  // namespace nibble::cuda
