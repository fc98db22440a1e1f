// What base/graph_launch.cc asks of the CUDA runtime and driver, with those of this file in their
// place: when a kernel is launched as a graph, of which stream's, and who waits for whom. That
// kernels run as they should is tested on a GPU (sm90_gemm_test).
#include "base/graph_launch.h"

#include <gtest/gtest.h>

#include <future>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "base/cuda.h"
#include "base/cuda_check.h"
#include "base/cuda_driver.h"
#include "nibble/error.h"

namespace {

struct Runtime {
  std::mutex mutex;
  std::map<cudaStream_t, unsigned long long> stream_ids;
  std::map<cudaStream_t, bool> capturing;
  std::vector<unsigned> grids;  // as last set, of each graph that was instantiated
  std::vector<CUfunction> functions;
  std::vector<std::pair<int, cudaStream_t>> launches;  // of which graph, on which stream
  std::vector<unsigned> clusters;                      // set on nodes
  bool refuse_params = false;
  CUresult launch_status = CUDA_SUCCESS;
  cudaStream_t stuck = nullptr;  // a launch on it waits for `go_on`
  std::shared_future<void> go_on;
} runtime;

cudaStream_t stream(int i) {
  return reinterpret_cast<cudaStream_t>(static_cast<uintptr_t>(16 * (i + 1)));
}
int graph_of(cudaGraphExec_t exec) {
  return static_cast<int>(reinterpret_cast<uintptr_t>(exec)) - 1;
}

}  // namespace

// The runtime's. Handles of graphs are their numbers from one on, those of functions the kernels.
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode*) { return cudaSuccess; }
cudaError_t cudaGetFuncBySymbol(cudaFunction_t* function, const void* kernel) {
  *function = static_cast<cudaFunction_t>(const_cast<void*>(kernel));
  return cudaSuccess;
}
cudaError_t cudaStreamGetPriority(cudaStream_t, int* priority) {
  *priority = -1;
  return cudaSuccess;
}
cudaError_t cudaGraphCreate(cudaGraph_t* graph, unsigned) {
  *graph = nullptr;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t) { return cudaSuccess; }
cudaError_t cudaGraphAddKernelNode(cudaGraphNode_t* node, cudaGraph_t, const cudaGraphNode_t*,
                                   size_t, const cudaKernelNodeParams*) {
  *node = nullptr;
  return cudaSuccess;
}
cudaError_t cudaGraphKernelNodeSetAttribute(cudaGraphNode_t, cudaLaunchAttributeID id,
                                            const cudaLaunchAttributeValue* value) {
  const std::lock_guard lock(runtime.mutex);
  if (id == cudaLaunchAttributeClusterDimension) runtime.clusters.push_back(value->clusterDim.x);
  if (id == cudaLaunchAttributePriority) {
    EXPECT_EQ(value->priority, -1);
  }
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t, unsigned long long) {
  const std::lock_guard lock(runtime.mutex);
  runtime.grids.emplace_back(0);
  runtime.functions.emplace_back(nullptr);
  *exec = reinterpret_cast<cudaGraphExec_t>(runtime.grids.size());
  return cudaSuccess;
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t) { return cudaSuccess; }

namespace nibble::cuda {

// The driver's.
const Driver& driver() {
  static constexpr Driver functions = {
      .graph_exec_kernel_node_set_params =
          [](CUgraphExec exec, CUgraphNode, const CUDA_KERNEL_NODE_PARAMS* params) {
            const std::lock_guard lock(runtime.mutex);
            if (runtime.refuse_params) return CUDA_ERROR_INVALID_VALUE;
            runtime.grids[graph_of(exec)] = params->gridDimX;
            runtime.functions[graph_of(exec)] = params->func;
            return CUDA_SUCCESS;
          },
      .graph_launch =
          [](CUgraphExec exec, CUstream s) {
            if (s == runtime.stuck) runtime.go_on.wait();
            const std::lock_guard lock(runtime.mutex);
            runtime.launches.emplace_back(graph_of(exec), s);
            return runtime.launch_status;
          },
      .stream_get_id =
          [](CUstream s, unsigned long long* id) {
            const std::lock_guard lock(runtime.mutex);
            if (runtime.capturing[s]) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
            *id = runtime.stream_ids[s];
            return CUDA_SUCCESS;
          },
      .stream_is_capturing =
          [](CUstream s, CUstreamCaptureStatus* status) {
            const std::lock_guard lock(runtime.mutex);
            *status = runtime.capturing[s] ? CU_STREAM_CAPTURE_STATUS_ACTIVE
                                           : CU_STREAM_CAPTURE_STATUS_NONE;
            return CUDA_SUCCESS;
          }};
  return functions;
}

void fail_cuda(const char* what, cudaError_t) { throw Error(ErrorCode::kDevice, what); }

namespace {

int kernels[4];  // their addresses stand for kernels

class GraphLaunch : public testing::Test {
 protected:
  GraphLaunch() {  // streams that no test before has seen
    static unsigned long long next = 0;
    for (int i = 0; i < 3; ++i) runtime.stream_ids[stream(i)] = ++next;
    runtime.capturing.clear();
    runtime.launches.clear();
    runtime.clusters.clear();
    first_ = static_cast<int>(runtime.grids.size());
  }
  static LaunchConfig config(int on, unsigned grid = 1, unsigned cluster = 1) {
    LaunchConfig c;
    c.grid = grid;
    c.cluster = cluster;
    c.stream.cuda = stream(on);
    return c;
  }
  static bool launch(const LaunchConfig& c, int kernel = 0) {
    return launch_as_graph(c, "kernel", &kernels[kernel], nullptr);
  }
  int made() const { return static_cast<int>(runtime.grids.size()) - first_; }

  int first_;
};

TEST_F(GraphLaunch, OneGraphForEachKernelStreamAndCluster) {
  for (int round = 0; round < 2; ++round) {
    EXPECT_TRUE(launch(config(0, 7)));
    EXPECT_TRUE(launch(config(1, 8)));
    EXPECT_TRUE(launch(config(0, 9), 1));
    EXPECT_TRUE(launch(config(0, 10, 2)));
  }
  EXPECT_EQ(made(), 4);
  ASSERT_EQ(runtime.launches.size(), 8);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(runtime.launches[i].first, first_ + i % 4);
  EXPECT_EQ(runtime.launches[1].second, stream(1));
  EXPECT_EQ(runtime.functions[first_ + 1], static_cast<void*>(&kernels[0]));
  EXPECT_EQ(runtime.functions[first_ + 2], static_cast<void*>(&kernels[1]));
  EXPECT_EQ(runtime.clusters, std::vector<unsigned>{2});
}

TEST_F(GraphLaunch, TheParametersAreEachCallsOwn) {
  for (const unsigned grid : {5, 6}) {
    EXPECT_TRUE(launch(config(0, grid)));
    EXPECT_EQ(runtime.grids.back(), grid);
  }
  EXPECT_EQ(made(), 1);
}

TEST_F(GraphLaunch, APreparedGraphIsTheOneThatIsLaunched) {
  const int64_t before = kernel_graphs();
  prepare_graph(config(0), &kernels[2], nullptr);
  EXPECT_EQ(made(), 1);
  EXPECT_EQ(kernel_graphs(), before + 1);
  EXPECT_TRUE(runtime.launches.empty());
  EXPECT_TRUE(launch(config(0), 2));
  EXPECT_EQ(made(), 1);
  EXPECT_EQ(kernel_graphs(), before + 1);
}

TEST_F(GraphLaunch, AStreamOfTheSameHandleIsAnother) {
  EXPECT_TRUE(launch(config(0)));
  runtime.stream_ids[stream(0)] += 1000;
  EXPECT_TRUE(launch(config(0)));
  EXPECT_EQ(made(), 2);
}

TEST_F(GraphLaunch, LeavesDependentLaunchesAndCapturesAlone) {
  const int64_t before = kernel_graphs();
  LaunchConfig pdl = config(0);
  pdl.pdl = true;
  EXPECT_FALSE(launch(pdl));
  runtime.capturing[stream(0)] = true;
  EXPECT_FALSE(launch(config(0)));
  prepare_graph(config(0), &kernels[0], nullptr);
  EXPECT_EQ(made(), 0);
  EXPECT_EQ(kernel_graphs(), before);
  EXPECT_TRUE(runtime.launches.empty());
}

TEST_F(GraphLaunch, WhatTheRuntimeRefusesIsNotLaunched) {
  runtime.refuse_params = true;
  EXPECT_FALSE(launch(config(0)));
  runtime.refuse_params = false;
  EXPECT_TRUE(runtime.launches.empty());
  runtime.launch_status = CUDA_ERROR_ILLEGAL_ADDRESS;
  EXPECT_THROW(launch(config(0)), Error);
  runtime.launch_status = CUDA_SUCCESS;
}

TEST_F(GraphLaunch, ALaunchThatWaitsHoldsNobodyElseUp) {
  std::promise<void> full;
  runtime.go_on = full.get_future().share();
  runtime.stuck = stream(0);
  auto waiting = std::async(std::launch::async, [] { return launch(config(0)); });
  EXPECT_TRUE(std::async(std::launch::async, [] { return launch(config(1)); }).get());
  EXPECT_EQ(runtime.launches.size(), 1);
  full.set_value();
  EXPECT_TRUE(waiting.get());
  runtime.stuck = nullptr;
  EXPECT_EQ(runtime.launches.size(), 2);
}

TEST_F(GraphLaunch, StreamsThatComeAndGoLeaveRoom) {
  for (unsigned i = 0; i < 2000; ++i) {
    runtime.stream_ids[stream(2)] = 1'000'000 + i;
    EXPECT_TRUE(launch(config(2)));
  }
  EXPECT_EQ(made(), 2000);
  EXPECT_TRUE(launch(config(2)));
  EXPECT_EQ(made(), 2000);
}

}  // namespace
}  // namespace nibble::cuda
