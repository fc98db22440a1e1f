// Linear layers with 4-bit weights: prepare once, then run with the best kernel for each m.
#pragma once

#include <memory>
#include <optional>
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

// The chip multiplies block-scaled FP4 (NVFP4, MXFP4) natively.
constexpr bool has_native_fp4(int sm) { return sm == 100 || sm == 103 || sm == 120 || sm == 121; }

// What Nibble does to the activations of 4-bit weights on this device unless told otherwise: kInt8
// on a CPU; on a GPU kFp4 where it is native, unless the weights are meant for 16-bit activations
// (`weight_only`, as a checkpoint's quantization config says); else k16Bit.
ActivationMode default_activation(const DeviceInfo& device, bool weight_only = false);

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

// Rows up to which block scales are best in tiles of 8 x 4: a tile of 128 x 4 would be mostly
// padding.
inline constexpr int64_t kSmallScaleRows = 32;

class GemmPlan;

struct GemmOptions {
  int64_t max_m = 1;
  // kU8: FP4 codes with block scales, see GemmOperands. A is in the weights' format and needs
  // kFp4; D is in NVFP4, of what would otherwise be bf16, and goes without `add`.
  DType a = DType::kF32;
  DType d = DType::kF32;
  ActivationMode activation = ActivationMode::k16Bit;
  bool add = false;  // D += instead of D =
  // [n] in the device's memory, added to alpha * A * W^T; null: none. The caller keeps it.
  const float* bias = nullptr;
  // How the block scales of A and D lie. Empty: as the plan chooses for each m, which its
  // activation_layout() and output_layout() tell.
  std::optional<ScaleLayout> a_layout = {};
  std::optional<ScaleLayout> d_layout = {};
  // The plan that D is the activations of, so that D's scales lie as it wants them, where d_layout
  // is empty. Asked when this plan is made, not kept. It takes kU8 and as many rows.
  const GemmPlan* d_reader = nullptr;
};

// What a plan multiplies, in the device's memory. Where the plan's A or D is kU8, it is codes, two
// a byte with even k in the low nibble, and beside them block scales: scale_bytes() of them
// (nibble/scales.h), D's padding written as zero, and for NVFP4 one decode scale, which multiplies.
struct GemmOperands {
  const void* a = nullptr;  // m rows of k
  int64_t a_stride = 0;     // from row to row, in elements; of codes in bytes
  const uint8_t* a_scales = nullptr;
  const float* a_decode_scale = nullptr;
  void* d = nullptr;  // m rows of n (n / 2)
  int64_t d_stride = 0;
  uint8_t* d_scales = nullptr;
  const float* d_decode_scale = nullptr;  // read, not made: D is quantized as it is written
};

// D[m, n] = alpha * A[m, k] * W^T + bias (+ D), m up to max_m; of weights with
// WeightTensor::gate_up, D[m, n / 2] = silu(gate) * up (+ D), where gate and up are the halves of
// alpha * A * W^T + bias. The kernel for every m is chosen when the plan is made; run() looks it
// up, allocates nothing and can be captured in a CUDA graph.
class GemmPlan {
 public:
  GemmPlan() = default;
  // On a GPU, kernels that the device's stream has not launched yet are put on it once, with zeros,
  // and waited for: the first call is as fast as the next.
  GemmPlan(LinearWeight weight, const Device& device, const GemmOptions& options);
  // a: m rows of k elements, a_stride apart; d: m rows of n (n / 2), d_stride apart. Strides in
  // elements.
  void run(const void* a, int64_t a_stride, void* d, int64_t d_stride, int64_t m) const;
  // The same for operands with scales. Throws kInvalidArgument, naming it, for what is missing,
  // misaligned, too narrow or not of this device.
  void run(const GemmOperands& operands, int64_t m) const;

  // How the scales of m rows of A must lie, and those of D will, where they are kU8: as the options
  // say, else 8x4 up to kSmallScaleRows rows and 128x4 above, or what an implementation is faster
  // with. Constant for m in 17 .. 20, 21 .. 24 and so on, as the choice of a kernel is.
  ScaleLayout activation_layout(int64_t m) const;
  ScaleLayout output_layout(int64_t m) const;

  const LinearWeight& weight() const;
  KernelChoice choice(int64_t m) const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

}  // namespace nibble
