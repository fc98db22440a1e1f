// D = alpha * A * B^T + bias + C; A = activations [m, k], B = weights [n, k], both K-major.
#pragma once

#include <vector>

#include "nibble/weight.h"
#include "ops/impl.h"

namespace nibble {

// How prepared weights lie in memory: one per architecture, read by all its kernels.
enum class WeightLayout : uint8_t {
  kCanonical,  // as WeightTensor says
  kCpuTiles,   // kernels/cpu/tiles.h: 4-bit weights for every x86-64 instruction set
  kSm90,       // kernels/sm90/layout.h: 4-bit weights on CUDA chips from sm_80 on
  kSm120,      // kernels/sm120/layout.h: 4-bit weights for block-scaled mma.sync
  kFp4Rows,    // kernels/cuda/fp4_rows.h: 4-bit weights for vendors' FP4 libraries
};
std::string_view to_string(WeightLayout layout);

// B, ready for a device's kernels.
struct PreparedWeight : WeightTensor {
  WeightLayout layout = WeightLayout::kCanonical;
  size_t bytes = 0;  // that one pass over the weights reads: codes and scales
  int device = 0;    // where they lie in a CUDA device's memory, its index
  // alpha(i) by row, NaN where the row holds one; null: the layout leaves NaN to the products.
  const float* row_alpha = nullptr;

  // Writes row i, code times block scale, exact in fp32 and without alpha, to out[k]. Every layout
  // brings its own, so that the reference and the embedding read them all.
  void (*decode_row)(const PreparedWeight&, int64_t i, float* out) = nullptr;

  // What multiplies row i's sum: its segment's global scale, its row scale, or 1.
  float alpha(int64_t i) const;
};

// The canonical bytes as they are.
PreparedWeight prepare_canonical(const WeightTensor& tensor);

struct GemmDesc {
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  WeightFormat weight = WeightFormat::kF32;
  WeightLayout layout = WeightLayout::kCanonical;
  ActivationMode activation = ActivationMode::k16Bit;
  DType a_type = DType::kF32;
  DType d_type = DType::kF32;
  int num_segments = 1;
  bool has_c = false;     // adds C, of D's type and shape; C may be D itself
  bool has_bias = false;  // adds a value a row of B
  // D = silu(gate) * up + C, gate and up being the halves of A * B^T and its bias; for weights with
  // WeightTensor::gate_up, and for all of those.
  bool silu_mul = false;
  // Where a_type or d_type is kU8, A or D is quantized: codes two a byte in views of half the
  // columns, and block scales in this layout. A has b's format and is for kFp4; D is rounded to
  // bf16, then to NVFP4 with a global scale that is given, and goes without C.
  ScaleLayout a_layout = ScaleLayout::kLinear;
  ScaleLayout d_layout = ScaleLayout::kLinear;

  int64_t columns() const { return silu_mul ? n / 2 : n; }  // of D
};
std::string to_string(const GemmDesc& desc);  // "m=1 n=576 k=576 nvfp4 int8 f32->f32"

// alpha is the segment's global_decode_scale (1 where the format has none), applied once to the
// fp32 sum of row n's products; see WeightTensor.
//
// ActivationMode::kInt8: each block of 16 along K of a row of A becomes int8 codes and an fp32
// scale (formats/int8_block.h); products and sums in a block are exact integers.
// ActivationMode::kBf16: A is rounded to bf16, to nearest even.
// ActivationMode::kFp4: A becomes NVFP4 (or MXFP4, ceil rule, for kMxfp4 weights), with the global
// scale b->input_decode_scale, or, where that is 0, amax(A)/2688 of this call.
struct GemmArgs {
  GemmDesc desc;
  MatrixView a;                       // [m, k]
  const PreparedWeight* b = nullptr;  // [n, k]
  MatrixView d;                       // [m, desc.columns()]
  MatrixView c;                       // the same where desc.has_c
  const float* bias = nullptr;        // [n] where desc.has_bias
  // Where A or D is quantized: its scales, scale_bytes of them (D's padding is written as zero),
  // and for NVFP4 one global decode scale in the device's memory.
  const uint8_t* a_scales = nullptr;
  const float* a_decode_scale = nullptr;
  uint8_t* d_scales = nullptr;
  const float* d_decode_scale = nullptr;
  void* workspace = nullptr;
};

using GemmImpl = OpImpl<GemmDesc, GemmArgs>;

// For GemmImpl::load: a call of which nothing but the descriptor is known.
GemmArgs without_memory(const GemmDesc& desc);

// Turns canonical weights into one layout. Ordered like the impl tables; the first that accepts and
// that a usable GEMM implementation reads wins.
struct WeightLayoutImpl {
  WeightLayout layout;
  Support (*can_prepare)(const WeightTensor&, const DeviceInfo&);
  PreparedWeight (*prepare)(const WeightTensor&, Stream);
};

// Throws kInvalidArgument naming the argument, what was expected and what was found.
void validate(const GemmArgs& args);

}  // namespace nibble
