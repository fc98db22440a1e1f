// One FP4 matmul as cuBLASLt is told it, and the algorithms that its heuristic names for it.
#pragma once

#include <compare>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "kernels/vendor/cublaslt/library.h"
#include "nibble/types.h"

namespace nibble::cublaslt {

// What NVIDIA recommends for sm_90 and later (cublasSetWorkspace).
inline constexpr size_t kWorkspaceBytes = size_t{32} << 20;
inline constexpr int kMostAlgorithms = 8;

// D[m, n] = alpha * A[m, k] * B[n, k]^T + beta * C. Strides are in elements.
struct Problem {
  int device = 0;
  WeightFormat format = WeightFormat::kNvfp4;
  DType type = DType::kBF16;  // of C and D: F32, F16 or BF16
  int64_t m = 0, n = 0, k = 0;
  int64_t a_stride = 0, c_stride = 0, d_stride = 0;
  int a_alignment = 16;  // bytes

  auto operator<=>(const Problem&) const = default;
};

// In the device's memory, alpha and beta too; without a C, `c` is `d` and beta's value 0.
struct Operands {
  const void *a, *a_scales, *b, *b_scales;
  const void* c;
  void* d;
  const float *alpha, *beta;
  void* workspace;  // kWorkspaceBytes
};

class Plan {
 public:
  // Asks the heuristic; throws kDevice where a call fails. That it knows no algorithm is no
  // failure: algorithms() is 0 then, and refusal() says what it returned.
  Plan(std::shared_ptr<const Library> library, cublasLtHandle_t handle, const Problem& problem);
  ~Plan();
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  int algorithms() const { return static_cast<int>(algorithms_.size()); }
  const std::string& refusal() const { return refusal_; }

  // With the algorithm of that rank, or the last there is.
  void run(const Operands& operands, int rank, cudaStream_t stream);

 private:
  void describe(const Problem& problem);
  void ask(const Problem& problem);
  void destroy() noexcept;
  template <class Value>
  void set(cublasLtMatmulDescAttributes_t attribute, const Value& value);

  std::shared_ptr<const Library> library_;
  cublasLtHandle_t handle_;
  std::mutex mutex_;  // the descriptor holds the scales' pointers of the call that is made
  cublasLtMatmulDesc_t desc_ = nullptr;
  cublasLtMatrixLayout_t b_ = nullptr, a_ = nullptr, c_ = nullptr, d_ = nullptr;
  std::vector<cublasLtMatmulAlgo_t> algorithms_;
  std::string refusal_;
};

// The plans of one library; the oldest go where there are more than `most`.
class Plans {
 public:
  explicit Plans(std::shared_ptr<const Library> library, size_t most = 4096)
      : library_(std::move(library)), most_(most) {}

  std::shared_ptr<Plan> get(cublasLtHandle_t handle, const Problem& problem);
  size_t size() const { return plans_.size(); }

 private:
  std::shared_ptr<const Library> library_;
  size_t most_;
  std::mutex mutex_;
  std::map<Problem, std::shared_ptr<Plan>> plans_;
  std::deque<Problem> order_;
};

}  // namespace nibble::cublaslt
