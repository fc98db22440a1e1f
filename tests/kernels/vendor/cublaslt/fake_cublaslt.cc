#include "tests/kernels/vendor/cublaslt/fake_cublaslt.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <utility>

using nibble::cublaslt::Fake;
using nibble::cublaslt::FakeLayout;
using nibble::cublaslt::FakeMatmul;

#ifndef NIBBLE_FAKE_VERSION
#define NIBBLE_FAKE_VERSION 130100
#endif

namespace {

struct Desc {
  std::map<int, uint64_t> attributes;
};

std::mutex mutex;

cublasStatus_t record(const char* call) {
  Fake& fake = *nibble_fake();
  fake.calls.emplace_back(call);
  const auto it = fake.failing.find(call);
  return it == fake.failing.end() ? CUBLAS_STATUS_SUCCESS : it->second;
}

uint64_t value_of(const void* bytes, size_t size) {
  uint64_t value = 0;
  std::memcpy(&value, bytes, size);
  return value;
}

template <class Object, class Handle>
cublasStatus_t create(const char* call, Handle* handle, Object object) {
  const std::lock_guard lock(mutex);
  const cublasStatus_t status = record(call);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  *handle = reinterpret_cast<Handle>(new Object(std::move(object)));
  ++nibble_fake()->alive;
  return status;
}

template <class Object, class Handle>
cublasStatus_t destroy(const char* call, Handle handle) {
  const std::lock_guard lock(mutex);
  delete reinterpret_cast<Object*>(handle);
  --nibble_fake()->alive;
  return record(call);
}

const Desc& desc_of(cublasLtMatmulDesc_t handle) { return *reinterpret_cast<Desc*>(handle); }
const FakeLayout& layout_of(cublasLtMatrixLayout_t handle) {
  return *reinterpret_cast<FakeLayout*>(handle);
}

}  // namespace

extern "C" {

Fake* nibble_fake() {
  static Fake fake;
  return &fake;
}

size_t cublasLtGetVersion() { return NIBBLE_FAKE_VERSION; }

const char* cublasLtGetStatusName(cublasStatus_t status) {
  return status == CUBLAS_STATUS_NOT_SUPPORTED ? "FAKE_NOT_SUPPORTED" : "FAKE_FAILURE";
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t*) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtDestroy(cublasLtHandle_t) { return CUBLAS_STATUS_SUCCESS; }

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  const bool fp32 = compute == CUBLAS_COMPUTE_32F && scale == CUDA_R_32F;
  return fp32 ? create("MatmulDescCreate", desc, Desc{}) : CUBLAS_STATUS_INVALID_VALUE;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
  return destroy<Desc>("MatmulDescDestroy", desc);
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t size) {
  const std::lock_guard lock(mutex);
  reinterpret_cast<Desc*>(desc)->attributes[attribute] = value_of(value, size);
  return record("MatmulDescSetAttribute");
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t stride) {
  return create("MatrixLayoutCreate", layout, FakeLayout{type, rows, cols, stride});
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  return destroy<FakeLayout>("MatrixLayoutDestroy", layout);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  return create("MatmulPreferenceCreate", preference, Desc{});
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  return destroy<Desc>("MatmulPreferenceDestroy", preference);
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, size_t size) {
  const std::lock_guard lock(mutex);
  nibble_fake()->preferences[attribute] = value_of(value, size);
  return record("MatmulPreferenceSetAttribute");
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatmulPreference_t, int most,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int* count) {
  const std::lock_guard lock(mutex);
  Fake& fake = *nibble_fake();
  fake.at_heuristic = desc_of(desc).attributes;
  const cublasStatus_t status = record("MatmulAlgoGetHeuristic");
  *count = status == CUBLAS_STATUS_SUCCESS ? std::min(most, fake.algorithms) : 0;
  for (int i = 0; i < *count; ++i) {
    results[i].algo.data[0] = 100 + static_cast<uint64_t>(i);
    results[i].state = CUBLAS_STATUS_SUCCESS;
  }
  return status;
}

#ifndef NIBBLE_FAKE_WITHOUT_MATMUL
cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                              cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t* algorithm, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  nibble_fake()->matmuls.push_back({desc_of(desc).attributes, alpha, a, b, beta, c, d, workspace,
                                    layout_of(a_layout), layout_of(b_layout), layout_of(c_layout),
                                    layout_of(d_layout), algorithm->data[0], workspace_bytes,
                                    stream});
  return record("Matmul");
}
#endif

}  // extern "C"
