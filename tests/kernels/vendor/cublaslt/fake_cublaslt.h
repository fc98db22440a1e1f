// What the fake cuBLASLt was told, in order, and how it is told to answer.
#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace nibble::cublaslt {

struct FakeLayout {
  cudaDataType_t type;
  uint64_t rows, cols;
  int64_t stride;
};

struct FakeMatmul {
  std::map<int, uint64_t> attributes;  // of the descriptor at the call, by number
  const void *alpha, *a, *b, *beta, *c;
  void *d, *workspace;
  FakeLayout a_layout, b_layout, c_layout, d_layout;
  uint64_t algorithm;
  size_t workspace_bytes;
  void* stream;
};

struct Fake {
  std::vector<std::string> calls;  // without their prefix; attributes as "MatmulDesc 17"
  std::map<int, uint64_t> at_heuristic, preferences;
  std::vector<FakeMatmul> matmuls;
  std::map<std::string, cublasStatus_t> failing;  // by call
  int algorithms = 3;
  int alive = 0;  // created and not destroyed
};

}  // namespace nibble::cublaslt

extern "C" nibble::cublaslt::Fake* nibble_fake();
