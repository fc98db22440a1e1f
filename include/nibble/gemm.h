// Linear layers with 4-bit weights: prepare once, then run with the best kernel for each m.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "nibble/device.h"
#include "nibble/weight.h"

namespace nibble {

struct PreparedWeight;

// Weights in the device's one layout. Copies share the memory.
class LinearWeight {
 public:
  LinearWeight() = default;
  explicit LinearWeight(std::shared_ptr<const PreparedWeight> prepared)
      : prepared_(std::move(prepared)) {}
  const PreparedWeight& prepared() const { return *prepared_; }
  int64_t n() const;
  int64_t k() const;
  int64_t columns() const;  // of D: n, or n / 2 where the rows are gate and up
  WeightFormat format() const;
  size_t bytes() const;  // that one pass over the weights reads
  explicit operator bool() const { return prepared_ != nullptr; }

 private:
  std::shared_ptr<const PreparedWeight> prepared_;
};

// Turns a canonical tensor into the device's layout for GEMMs in `activation` mode. The result
// holds tensor.owner only where it reads the canonical bytes in place. Throws kUnsupported with
// every layout's refusal, kInvalidArgument for a malformed tensor.
LinearWeight prepare(const WeightTensor& tensor, const Device& device,
                     ActivationMode activation = ActivationMode::k16Bit);

// What Nibble does to activations on this device unless told otherwise.
ActivationMode default_activation(const Device& device);

// Chosen kernel and why, for inspect and the trace.
struct KernelChoice {
  std::string op;                     // "gemm"
  std::string desc;                   // "m=1 n=576 k=576 nvfp4 16bit f32->f32"
  std::string impl;                   // "cpu_portable_gemm"
  std::string config;                 // "tile_m=4"
  std::string reason;                 // "forced", "lowest estimate 3.2 us of 4", "first in order"
  std::vector<std::string> refusals;  // "ref_gemm: ...", in table order
};

struct GemmOptions;

// The choice for a GEMM with weights of this format that were prepared for the device, without the
// weights: for listings. Throws what prepare() and GemmPlan throw.
KernelChoice choose_gemm(WeightFormat format, int64_t n, int64_t k, int64_t m, const Device& device,
                         const GemmOptions& options);

// Rows up to which a plan takes ActivationMode::kInt8 at its word. More rows of activations go
// through 4-bit weights in kBf16 where the processor multiplies bf16 (AVX-512 BF16, AMX): faster
// there, and nearer to the 16bit mode. choice(), inspect and the trace say which it is.
inline constexpr int64_t kInt8MaxRows = 8;

struct GemmOptions {
  int64_t max_m = 1;
  DType a = DType::kF32;
  DType d = DType::kF32;
  ActivationMode activation = ActivationMode::k16Bit;
  bool add = false;  // D += instead of D =
  // [n] in the device's memory, added to alpha * A * W^T; null: none. The caller keeps it.
  const float* bias = nullptr;
};

// D[m, n] = alpha * A[m, k] * W^T + bias (+ D), m up to max_m; of weights with
// WeightTensor::gate_up, D[m, n / 2] = silu(gate) * up (+ D), where gate and up are the halves of
// alpha * A * W^T + bias. The kernel for every m is chosen when the plan is made; run() looks it
// up, allocates nothing and can be captured in a CUDA graph.
class GemmPlan {
 public:
  GemmPlan() = default;
  GemmPlan(LinearWeight weight, const Device& device, const GemmOptions& options);
  // a: m rows of k elements, a_stride apart; d: m rows of n (n / 2), d_stride apart. Strides in
  // elements.
  void run(const void* a, int64_t a_stride, void* d, int64_t d_stride, int64_t m) const;
  const LinearWeight& weight() const;
  KernelChoice choice(int64_t m) const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

}  // namespace nibble
