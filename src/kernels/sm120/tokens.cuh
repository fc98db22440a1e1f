// Activations into shared memory: copied, or quantized on the way.
#pragma once

#include "formats/scale_layout.h"
#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/quantize.cuh"
#include "kernels/sm120/gemm_params.h"

namespace nibble::sm120 {

template <WeightFormat kFormat>
inline constexpr int kScaleBlock = static_cast<int>(block_size(kFormat));

// Scales of one token in 128 of k: two words of NVFP4, one of MXFP4.
template <WeightFormat kFormat>
inline constexpr int kScaleWords = kFormat == WeightFormat::kMxfp4 ? 1 : 2;

// What is behind the last token or the last of k arrives as zeros.
template <WeightFormat kFormat>
__device__ __forceinline__ void copy_tokens(const GemmParams& p, const GemmShared& at,
                                            uint32_t stage, int tile_tokens, int64_t first_token,
                                            int k_block) {
  using namespace nibble::cuda;
  const int tokens = static_cast<int>(min(int64_t{tile_tokens}, p.m - first_token));
  const int chunks_log2 = p.warps_k_log2 + 2;  // of 32 codes
  for (int i = threadIdx.x; i < tile_tokens << chunks_log2; i += blockDim.x) {
    const int token = i >> chunks_log2, chunk = i & ((1 << chunks_log2) - 1);
    const int k = k_block * kBlockK + chunk * 32;
    const bool inside = token < tokens && k < p.k;
    const uint8_t* const from =
        p.tokens.data + (inside ? (first_token + token) * p.tokens.stride + k / 2 : 0);
    cp_async_16(stage + token * at.token_stride + chunk * 16, from, inside ? 16 : 0);
  }
  constexpr int kWords = kScaleWords<kFormat>;
  const int words_log2 = p.warps_k_log2 + (kWords - 1);
  const int columns = p.k / kScaleBlock<kFormat>;
  for (int i = threadIdx.x; i < tile_tokens << words_log2; i += blockDim.x) {
    const int token = i >> words_log2, word = i & ((1 << words_log2) - 1);
    const int column = (k_block * kWords + word) * 4;
    const int valid = token < tokens ? max(0, min(4, columns - column)) : 0;
    const uint32_t to = stage + at.scales + token * at.scale_stride + word * 4;
    const int64_t row = first_token + token;
    if (p.tokens.words) {
      const int64_t from = valid > 0 ? scale_offset(p.tokens.layout, row, column, columns) : 0;
      cp_async_4(to, p.tokens.scales + from, valid);
    } else {
      uint32_t four = 0;
      for (int j = 0; j < valid; ++j) {
        four |= uint32_t{p.tokens.scales[row * columns + column + j]} << (8 * j);
      }
      asm volatile("st.shared.u32 [%0], %1;" ::"r"(to), "r"(four) : "memory");
    }
  }
}

template <WeightFormat kFormat, DType kType>
__device__ __forceinline__ void quantize_tokens_as(const GemmParams& p, const GemmShared& at,
                                                   uint8_t* shared, int tile_tokens,
                                                   int64_t first_token, const KRange& range) {
  using namespace nibble::cuda;
  constexpr int kUnit = 16;
  constexpr int kBlock = kScaleBlock<kFormat>;
  const int units = (range.end - range.begin) * (kBlockK / kUnit);  // of a token, padding included
  const float decode = p.tokens.scale_memory == nullptr ? p.tokens.scale : *p.tokens.scale_memory;
  const float encode = 1.0f / decode;
  // A whole number of warps' worth: units are a multiple of 8, tokens too.
  for (int i = threadIdx.x; i < tile_tokens * units; i += blockDim.x) {
    const int token = i / units, unit = i - token * units;
    const int k = range.begin * kBlockK + unit * kUnit;
    const bool valid = first_token + token < p.m && k < p.k;
    const uint8_t* const from = p.tokens.data + (first_token + token) * p.tokens.stride + k * 2;
    Elements16<kType> x = {};
    if (valid) x.load(from);
    QuantizedUnit q = quantize_unit<kFormat>(x, valid, encode, Mxfp4ScaleRule::kCeil);
    const int half = k % kBlock / kUnit;  // MXFP4: which of the block's two
    if (q.rare) {
      const uint8_t* const block = from - half * kUnit * 2;
      q = quantize_rare<kFormat>([&](int e) { return element<kType>(block, e); }, half, encode,
                                 Mxfp4ScaleRule::kCeil);
    }
    if (!valid) q = {};
    *reinterpret_cast<uint2*>(shared + token * at.token_stride + unit * (kUnit / 2)) = q.codes;
    if (half == 0) {
      shared[at.scales + token * at.scale_stride + unit * kUnit / kBlock] =
          static_cast<uint8_t>(q.scale);
    }
  }
}

// All of the block's k at once.
template <WeightFormat kFormat>
__device__ __forceinline__ void quantize_tokens(const GemmParams& p, const GemmShared& at,
                                                uint8_t* shared, int tile_tokens,
                                                int64_t first_token, const KRange& range) {
  if (p.tokens.fp16) {
    quantize_tokens_as<kFormat, DType::kF16>(p, at, shared, tile_tokens, first_token, range);
  } else {
    quantize_tokens_as<kFormat, DType::kBF16>(p, at, shared, tile_tokens, first_token, range);
  }
}

}  // namespace nibble::sm120
