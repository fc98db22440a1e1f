// Round-to-nearest quantization where latency counts more than bandwidth: NVFP4 from 16-bit types,
// one row and eight elements a lane, scales straight to global memory. The parameters are few
// enough for the first lines of the constant bank, and the load is issued as early as it can be.
#include "base/launch.h"
#include "kernels/cuda/quantize_rows.cuh"

namespace nibble::cuda {
namespace {

constexpr int kThreads = 128;

struct SmallParams {
  const uint8_t* src;
  int64_t src_row_bytes;
  uint8_t* codes;
  uint8_t* scales;
  const float* decode_scale;
  float encode_scale;
  uint32_t m, padded_rows;
  uint32_t cols;  // scales of a row
  Divisor lanes;  // of a row, padding included
  ScaleLayout layout;
  bool pdl;
};

template <DType kType, int kElements>
__global__ void __launch_bounds__(kThreads) small_kernel(const SmallParams p) {
  constexpr int kLanesPerBlock = 16 / kElements;
  const uint32_t index = blockIdx.x * kThreads + threadIdx.x;
  const uint32_t row = p.lanes.quotient(index), lane = index - row * p.lanes.value;
  const uint32_t col = lane / kLanesPerBlock;
  const bool valid = row < p.m && col < p.cols;
  const uint8_t* src = p.src + row * p.src_row_bytes + lane * (kElements * 2);
  Elements16<kType> x = {};
  if (p.pdl) pdl_wait();
  if (valid) {
    x.words[0] = reinterpret_cast<const uint4*>(src)[0];
    if constexpr (kElements == 16) x.words[1] = reinterpret_cast<const uint4*>(src)[1];
  }
  uint8_t* scale_at = nullptr;
  if (lane % kLanesPerBlock == 0 && row < p.padded_rows) {
    scale_at = p.scales + offset_of_scale(p.layout, row, col, p.cols);
  }
  const bool given = p.decode_scale == nullptr;
  const float encode_scale = given ? p.encode_scale : usual_quotient(1.0f, *p.decode_scale);
  const bool usual = encode_scale >= kMinUsualScale && encode_scale <= kMaxUsualScale;
  if (p.pdl) pdl_trigger();

  uint32_t amax_bits = x.template amax_bits<kElements>();
  if constexpr (kLanesPerBlock == 2) {
    amax_bits = max(amax_bits, __shfl_xor_sync(~0u, amax_bits, 1));
  }
  const float amax = __uint_as_float(amax_bits);
  uint8_t scale = fast_e4m3(nvfp4_ideal_scale(amax, encode_scale));
  const float quotient = usual_quotient(encode_scale, fast_e4m3_to_float(scale));
  const float factor = scale == 0 ? 0.0f : quotient;
  uint2 codes;
  codes.x = E2m1Codes::encode8<0, false>(x, factor);
  if constexpr (kElements == 16) codes.y = E2m1Codes::encode8<1, false>(x, factor);
  if (valid && (!usual || !(amax * factor < 7.0f))) {
    const int part = static_cast<int>(lane % kLanesPerBlock);
    const uint8_t* block = src - part * kElements * 2;
    const QuantizedUnit q = quantize_rare<WeightFormat::kNvfp4>(
        [&](int i) { return element<kType>(block, i); }, 0,
        given ? p.encode_scale : 1.0f / *p.decode_scale, Mxfp4ScaleRule::kCeil);
    codes = q.codes;
    if (part == 1) codes.x = codes.y;
    scale = static_cast<uint8_t>(q.scale);
  }
  if (valid) {
    uint8_t* to =
        p.codes + (static_cast<int64_t>(row) * p.cols * kLanesPerBlock + lane) * (kElements / 2);
    if constexpr (kElements == 16) {
      *reinterpret_cast<uint2*>(to) = codes;
    } else {
      *reinterpret_cast<uint32_t*>(to) = codes.x;
    }
  }
  if (scale_at != nullptr) *scale_at = valid ? scale : uint8_t{0};
}

template <int kElements>
void launch_elements(const QuantizeParams& p, nibble::Stream stream) {
  const int64_t tile = scale_tile_rows(p.layout), cols = p.k / kNvfp4BlockSize;
  const int64_t padded_rows = (p.m + tile - 1) / tile * tile;
  const int64_t lanes = padded_scale_cols(p.layout, cols) * (kNvfp4BlockSize / kElements);
  const SmallParams s = {p.src,
                         p.src_row_bytes,
                         p.codes,
                         p.scales,
                         p.decode_scale,
                         p.encode_scale,
                         static_cast<uint32_t>(p.m),
                         static_cast<uint32_t>(padded_rows),
                         static_cast<uint32_t>(cols),
                         Divisor(static_cast<uint32_t>(lanes)),
                         p.layout,
                         stream.pdl};
  const auto grid = static_cast<uint32_t>((padded_rows * lanes + kThreads - 1) / kThreads);
  launch({.grid = grid, .block = kThreads, .pdl = stream.pdl, .stream = stream}, "quantize_small",
         p.type == DType::kF16 ? small_kernel<DType::kF16, kElements>
                               : small_kernel<DType::kBF16, kElements>,
         s);
}

}  // namespace

void launch_quantize_small(const QuantizeParams& p, int elements, nibble::Stream stream) {
  if (elements == 8) return launch_elements<8>(p, stream);
  launch_elements<16>(p, stream);
}

}  // namespace nibble::cuda
