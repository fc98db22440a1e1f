#include "kernels/vendor/cublaslt/plan.h"

#include <fmt/format.h>

#include <algorithm>

namespace nibble::cublaslt {
namespace {

cudaDataType_t data_type(DType type) {
  return type == DType::kF32 ? CUDA_R_32F : type == DType::kF16 ? CUDA_R_16F : CUDA_R_16BF;
}

constexpr uint32_t kWeightAlignment = 256;  // kernels/cuda/fp4_rows.h, at any segment
constexpr uint32_t kOutputAlignment = 16;

}  // namespace

Plan::Plan(std::shared_ptr<const Library> library, cublasLtHandle_t handle, const Problem& p)
    : library_(std::move(library)), handle_(handle) {
  try {
    describe(p);
    ask(p);
  } catch (...) {
    destroy();
    throw;
  }
}

Plan::~Plan() { destroy(); }

void Plan::destroy() noexcept {
  for (const auto layout : {b_, a_, c_, d_}) {
    if (layout != nullptr) library_->MatrixLayoutDestroy(layout);
  }
  if (desc_ != nullptr) library_->MatmulDescDestroy(desc_);
}

template <class Value>
void Plan::set(cublasLtMatmulDescAttributes_t attribute, const Value& value) {
  library_->check(library_->MatmulDescSetAttribute(desc_, attribute, &value, sizeof(value)),
                  "MatmulDescSetAttribute");
}

// cuBLASLt's matrices are column-major, so ours are their transposes: its A is the weights, its D
// has n rows. Both factors lie along k, the only way that it takes 4-bit floats.
void Plan::describe(const Problem& p) {
  const Library& lt = *library_;
  lt.check(lt.MatmulDescCreate(&desc_, CUBLAS_COMPUTE_32F, CUDA_R_32F), "MatmulDescCreate");
  set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
  set(CUBLASLT_MATMUL_DESC_TRANSB, CUBLAS_OP_N);
  set(CUBLASLT_MATMUL_DESC_POINTER_MODE, CUBLASLT_POINTER_MODE_DEVICE);
  const auto scales = p.format == WeightFormat::kNvfp4 ? CUBLASLT_MATMUL_MATRIX_SCALE_VEC16_UE4M3
                                                       : CUBLASLT_MATMUL_MATRIX_SCALE_VEC32_UE8M0;
  set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, scales);
  set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, scales);
  // The heuristic refuses block scales without a pointer; it does not read what is there.
  alignas(kWeightAlignment) static constexpr uint8_t kSomewhere = 0;
  const void* const somewhere = &kSomewhere;
  set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, somewhere);
  set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, somewhere);
  const auto layout = [&](cublasLtMatrixLayout_t& to, cudaDataType_t type, int64_t rows,
                          int64_t cols, int64_t stride) {
    lt.check(lt.MatrixLayoutCreate(&to, type, static_cast<uint64_t>(rows),
                                   static_cast<uint64_t>(cols), stride),
             "MatrixLayoutCreate");
  };
  layout(b_, CUDA_R_4F_E2M1, p.k, p.n, p.k);
  layout(a_, CUDA_R_4F_E2M1, p.k, p.m, p.a_stride);
  layout(c_, data_type(p.type), p.n, p.m, p.c_stride);
  layout(d_, data_type(p.type), p.n, p.m, p.d_stride);
}

void Plan::ask(const Problem& p) {
  const Library& lt = *library_;
  cublasLtMatmulPreference_t created = nullptr;
  lt.check(lt.MatmulPreferenceCreate(&created), "MatmulPreferenceCreate");
  const std::unique_ptr<cublasLtMatmulPreferenceOpaque_t,
                        decltype(&cublasLtMatmulPreferenceDestroy)>
      preference(created, lt.MatmulPreferenceDestroy);
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    lt.check(lt.MatmulPreferenceSetAttribute(created, attribute, &value, sizeof(value)),
             "MatmulPreferenceSetAttribute");
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, kWeightAlignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<uint32_t>(p.a_alignment));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, kOutputAlignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, kOutputAlignment);

  cublasLtMatmulHeuristicResult_t found[kMostAlgorithms] = {};
  int count = 0;
  const cublasStatus_t status = lt.MatmulAlgoGetHeuristic(handle_, desc_, b_, a_, c_, d_, created,
                                                          kMostAlgorithms, found, &count);
  if (status != CUBLAS_STATUS_NOT_SUPPORTED) lt.check(status, "MatmulAlgoGetHeuristic");
  for (int i = 0; i < std::min(count, kMostAlgorithms); ++i) {
    if (found[i].state == CUBLAS_STATUS_SUCCESS && found[i].workspaceSize <= kWorkspaceBytes) {
      algorithms_.push_back(found[i].algo);
    }
  }
  if (algorithms_.empty()) {
    refusal_ = fmt::format("cuBLASLt {} has no algorithm for {} {} x {} x {}: {}", lt.GetVersion(),
                           to_string(p.format), p.m, p.n, p.k, lt.GetStatusName(status));
  }
}

void Plan::run(const Operands& o, int rank, cudaStream_t stream) {
  const std::lock_guard lock(mutex_);
  set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, o.b_scales);
  set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, o.a_scales);
  const auto& algorithm = algorithms_.at(static_cast<size_t>(std::min(rank, algorithms() - 1)));
  library_->check(library_->Matmul(handle_, desc_, o.alpha, o.b, b_, o.a, a_, o.beta, o.c, c_, o.d,
                                   d_, &algorithm, o.workspace, kWorkspaceBytes, stream),
                  "Matmul");
}

std::shared_ptr<Plan> Plans::get(cublasLtHandle_t handle, const Problem& problem) {
  const std::lock_guard lock(mutex_);
  if (const auto it = plans_.find(problem); it != plans_.end()) return it->second;
  auto plan = std::make_shared<Plan>(library_, handle, problem);
  if (plans_.size() >= most_) {
    plans_.erase(order_.front());
    order_.pop_front();
  }
  plans_.emplace(problem, plan);
  order_.push_back(problem);
  return plan;
}

}  // namespace nibble::cublaslt
