#include "base/graph_launch.h"

#include <atomic>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "base/cuda.h"
#include "base/cuda_check.h"
#include "base/cuda_driver.h"
#include "base/env.h"

namespace nibble::cuda {
namespace {

// A graph runs once at a time, so each stream has its own: launches on two of them would wait for
// one another. A stream's id, unlike its handle, never comes again.
struct Key {
  const void* kernel;
  unsigned long long stream;
  int device;
  dim3 cluster;

  bool operator==(const Key& o) const {
    return kernel == o.kernel && stream == o.stream && device == o.device &&
           cluster.x == o.cluster.x && cluster.y == o.cluster.y && cluster.z == o.cluster.z;
  }
};
struct KeyHash {
  size_t operator()(const Key& k) const {
    const size_t which = k.cluster.x + 32 * k.cluster.y + 1024 * k.cluster.z + 65536 * k.device;
    return (reinterpret_cast<size_t>(k.kernel) * 31 + k.stream) * 31 + which;
  }
};

// What the runtime does meanwhile is no part of what another thread captures.
struct OutsideCaptures {
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  OutsideCaptures() { cudaThreadExchangeStreamCaptureMode(&mode); }
  ~OutsideCaptures() { cudaThreadExchangeStreamCaptureMode(&mode); }
};

class KernelGraph {
 public:
  KernelGraph(const LaunchConfig& config, const void* kernel, void** params) {
    const OutsideCaptures outside;
    made_ = make(config, kernel, params);
    if (!made_) cudaGetLastError();
  }
  KernelGraph(const KernelGraph&) = delete;
  ~KernelGraph() {
    if (exec_ != nullptr) cudaGraphExecDestroy(exec_);
    if (graph_ != nullptr) cudaGraphDestroy(graph_);
  }

  // False where the runtime takes no such parameters: cudaLaunchKernelExC will say why.
  bool launch(const LaunchConfig& config, void** params, const char* name) {
    CUDA_KERNEL_NODE_PARAMS p = {};
    p.func = function_;
    p.gridDimX = config.grid.x, p.gridDimY = config.grid.y, p.gridDimZ = config.grid.z;
    p.blockDimX = config.block.x, p.blockDimY = config.block.y, p.blockDimZ = config.block.z;
    p.sharedMemBytes = static_cast<unsigned>(config.shared_bytes);
    p.kernelParams = params;
    const std::lock_guard lock(mutex_);
    if (!made_ || driver().graph_exec_kernel_node_set_params(exec_, node_, &p) != CUDA_SUCCESS) {
      return false;
    }
    const auto stream = static_cast<cudaStream_t>(config.stream.cuda);
    check(static_cast<cudaError_t>(driver().graph_launch(exec_, stream)), name);
    return true;
  }

 private:
  bool make(const LaunchConfig& config, const void* kernel, void** params) {
    cudaKernelNodeParams p = {};
    p.func = const_cast<void*>(kernel);
    p.gridDim = config.grid;
    p.blockDim = config.block;
    p.sharedMemBytes = static_cast<unsigned>(config.shared_bytes);
    p.kernelParams = params;
    const auto stream = static_cast<cudaStream_t>(config.stream.cuda);
    cudaLaunchAttributeValue cluster = {}, priority = {};
    cluster.clusterDim = {config.cluster.x, config.cluster.y, config.cluster.z};
    const bool clustered = config.cluster.x * config.cluster.y * config.cluster.z > 1;
    const auto set = [&](cudaLaunchAttributeID id, const cudaLaunchAttributeValue& value) {
      return cudaGraphKernelNodeSetAttribute(node_, id, &value) == cudaSuccess;
    };
    return cudaGraphCreate(&graph_, 0) == cudaSuccess &&
           cudaGraphAddKernelNode(&node_, graph_, nullptr, 0, &p) == cudaSuccess &&
           cudaGetFuncBySymbol(&function_, kernel) == cudaSuccess &&
           (!clustered || set(cudaLaunchAttributeClusterDimension, cluster)) &&
           cudaStreamGetPriority(stream, &priority.priority) == cudaSuccess &&
           set(cudaLaunchAttributePriority, priority) &&
           cudaGraphInstantiate(&exec_, graph_, 0) == cudaSuccess &&
           cudaGraphUpload(exec_, stream) == cudaSuccess;
  }

  std::mutex mutex_;
  cudaGraph_t graph_ = nullptr;
  cudaGraphNode_t node_ = nullptr;
  cudaGraphExec_t exec_ = nullptr;
  cudaFunction_t function_ = nullptr;
  bool made_ = false;
};

// Of all devices. Nothing waits for a stream while the table is locked: a launch may, where
// thousands are under way, and for another device's, whose thread could not make it then.
class KernelGraphs {
 public:
  // Null where the stream takes no graph.
  std::shared_ptr<KernelGraph> get(const LaunchConfig& config, const void* kernel, void** params) {
    const auto stream = static_cast<cudaStream_t>(config.stream.cuda);
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    Key key = {kernel, 0, config.stream.index, config.cluster};
    // In this order: asked for its id, a stream that is captured would no longer be.
    if (driver().stream_is_capturing(stream, &status) != CUDA_SUCCESS ||
        status != CU_STREAM_CAPTURE_STATUS_NONE ||
        driver().stream_get_id(stream, &key.stream) != CUDA_SUCCESS) {
      return nullptr;
    }
    {
      const std::lock_guard lock(mutex_);
      if (const auto found = all_.find(key); found != all_.end()) return found->second;
    }
    auto made = std::make_shared<KernelGraph>(config, kernel, params);
    ++made_;
    Graphs old;  // of streams that came and went, destroyed behind the lock
    const std::lock_guard lock(mutex_);
    if (all_.size() >= kMost) old.swap(all_);
    return all_.try_emplace(key, std::move(made)).first->second;
  }

  int64_t made() const { return made_; }

 private:
  static constexpr size_t kMost = 512;  // 0.1 MB of a device each
  using Graphs = std::unordered_map<Key, std::shared_ptr<KernelGraph>, KeyHash>;
  std::mutex mutex_;
  Graphs all_;
  std::atomic<int64_t> made_ = 0;
};

// Never destroyed: when statics are, CUDA may be gone.
KernelGraphs& graphs() {
  static auto& all = *new KernelGraphs;
  return all;
}

bool is_plain(const LaunchConfig& config) {
  static const bool plain = env("NIBBLE_PLAIN_LAUNCH") == "1";
  return plain || config.pdl;
}

}  // namespace

int64_t kernel_graphs() { return graphs().made(); }

void prepare_graph(const LaunchConfig& config, const void* kernel, void** params) {
  if (!is_plain(config)) graphs().get(config, kernel, params);
}

bool launch_as_graph(const LaunchConfig& config, const char* name, const void* kernel,
                     void** params) {
  if (is_plain(config)) return false;
  const std::shared_ptr<KernelGraph> graph = graphs().get(config, kernel, params);
  return graph != nullptr && graph->launch(config, params, name);
}

}  // namespace nibble::cuda
