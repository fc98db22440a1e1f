// Layers and problems of bench_sm90_gemm and bench_sm90_kinds.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#include "bench/sm90_gemm_kernels.h"
#include "bench/sm90_harness.h"
#include "formats/float16.h"
#include "kernels/sm90/layout.h"

namespace nibble::bench {

using namespace nibble::sm90;

inline constexpr size_t kRotateBytes = size_t{300} << 20;  // five times L2
inline constexpr int kSampleRows = 192;

template <class T>
struct Memory {
  T* p = nullptr;
  explicit Memory(size_t count) { CUDA_OK(cudaMalloc(&p, std::max<size_t>(count, 1) * sizeof(T))); }
  ~Memory() { cudaFree(p); }
  Memory(const Memory&) = delete;
};

inline void in_threads(int64_t count, const std::function<void(int64_t)>& work) {
  std::vector<std::thread> threads;
  const int n = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  for (int t = 0; t < n; ++t) {
    threads.emplace_back([&, t] {
      for (int64_t i = t; i < count; i += n) work(i);
    });
  }
  for (std::thread& t : threads) t.join();
}

// A layer of random weights, canonical and packed, on the device.
struct Layer {
  int n, k;
  size_t bytes;
  int copies;
  std::vector<float> alpha;
  Memory<uint8_t> codes, scales, packed;
  Memory<float> row_alpha;

  Layer(int rows, int cols, bool rotate)
      : n(rows),
        k(cols),
        bytes(static_cast<size_t>(packed_bytes(rows, cols))),
        copies(rotate ? static_cast<int>(kRotateBytes / bytes) + 2 : 1),
        codes(size_t(n) * k / 2),
        scales(size_t(n) * k / 16),
        packed(bytes * copies),
        row_alpha(row_blocks(n) * kBlockRows) {
    std::vector<uint8_t> c(size_t(n) * k / 2), s(size_t(n) * k / 16), out(bytes);
    alpha.resize(row_blocks(n) * kBlockRows);
    WeightTensor t;
    t.format = WeightFormat::kNvfp4;
    t.n = n;
    t.k = k;
    t.codes = c.data();
    t.scales = s.data();
    t.segments = {{0, 0.0137f}, {n / 3, 0.021f}, {n / 2, 0.007f}};
    in_threads(row_blocks(n), [&](int64_t rb) {
      std::mt19937 rng(static_cast<uint32_t>(rb * 31 + n));
      for (int64_t i = rb * 16; i < std::min<int64_t>(n, rb * 16 + 16); ++i) {
        for (int j = 0; j < k / 2; ++j) c[i * (k / 2) + j] = static_cast<uint8_t>(rng());
        for (int j = 0; j < k / 16; ++j) {
          // Mostly around 1, some subnormal, zero, negative or the largest.
          const uint32_t r = rng();
          uint8_t scale = static_cast<uint8_t>(0x18 + r % 0x38);
          if (r >> 8 & 1 && r >> 9 % 50 == 0) scale = static_cast<uint8_t>(r >> 16 & 0x87);
          if ((r >> 20) % 977 == 1) scale = 0x7E;
          s[i * (k / 16) + j] = scale;
        }
      }
      pack_rows(t, rb, out.data(), alpha.data());
    });
    CUDA_OK(cudaMemcpy(codes.p, c.data(), c.size(), cudaMemcpyHostToDevice));
    CUDA_OK(cudaMemcpy(scales.p, s.data(), s.size(), cudaMemcpyHostToDevice));
    CUDA_OK(cudaMemcpy(row_alpha.p, alpha.data(), alpha.size() * 4, cudaMemcpyHostToDevice));
    CUDA_OK(cudaMemcpy(packed.p, out.data(), bytes, cudaMemcpyHostToDevice));
    for (int i = 1; i < copies; ++i) {
      CUDA_OK(cudaMemcpy(packed.p + i * bytes, packed.p, bytes, cudaMemcpyDeviceToDevice));
    }
  }
  const uint8_t* copy(int i) const { return packed.p + size_t(i % copies) * bytes; }
};

// A layer by cuBLAS: its weights without alpha in bf16 or fp16, as many copies as rotate.
class CublasLayer {
 public:
  CublasLayer(const Layer& layer, bool fp16)
      : cublas_(handle()),  // here: no memory can be had while a graph is captured
        layer_(layer),
        type_(fp16 ? CUDA_R_16F : CUDA_R_16BF),
        size_(size_t(layer.n) * layer.k),
        copies_(static_cast<int>(kRotateBytes / (size_ * 2)) + 2),
        weights_(size_ * copies_) {
    for (int i = 0; i < copies_; ++i) {
      launch_widen(layer.codes.p, layer.scales.p, weights_.p + i * size_, size_, fp16);
    }
    CUDA_OK(cudaDeviceSynchronize());
  }
  // d[m, n] of a[m, k], both of the layer's type, with copy i.
  void multiply(int i, const uint16_t* a, int m, void* d) const {
    const float one = 1.0f, zero = 0.0f;
    CUDA_OK(cublasGemmEx(cublas_, CUBLAS_OP_T, CUBLAS_OP_N, layer_.n, m, layer_.k, &one,
                         weights_.p + size_t(i % copies_) * size_, type_, layer_.k, a, type_,
                         layer_.k, &zero, d, type_, layer_.n, CUBLAS_COMPUTE_32F,
                         CUBLAS_GEMM_DEFAULT));
  }

 private:
  static cublasHandle_t handle() {
    static const Memory<uint8_t> workspace(size_t{64} << 20);
    static cublasHandle_t made = [] {
      cublasHandle_t cublas;
      CUDA_OK(cublasCreate(&cublas));
      CUDA_OK(cublasSetStream(cublas, stream()));
      CUDA_OK(cublasSetWorkspace(cublas, workspace.p, size_t{64} << 20));
      return cublas;
    }();
    return made;
  }

  cublasHandle_t cublas_;
  const Layer& layer_;
  cudaDataType_t type_;
  size_t size_;
  int copies_;
  Memory<uint16_t> weights_;
};

// bf16 activations, the output, C and the sampled rows' sums for one m.
struct Problem {
  const Layer& layer;
  int m;
  DType type;
  bool has_c;
  int d_stride;
  Memory<uint16_t> a;
  Memory<uint8_t> d, c;
  std::vector<int> rows;
  std::vector<double> want;

  static constexpr int kGuard = 128;  // bytes behind the output

  Problem(const Layer& l, int tokens, DType output = DType::kBF16, bool with_c = false,
          int padding = 0)
      : layer(l),
        m(tokens),
        type(output),
        has_c(with_c),
        d_stride(l.n + padding),
        a(size_t(m) * l.k),
        d(bytes()),
        c(with_c ? bytes() : 0) {
    std::mt19937 rng(static_cast<uint32_t>(m + l.n));
    std::vector<uint16_t> host(size_t(m) * l.k);
    for (auto& x : host) {
      x = float_to_bf16(static_cast<float>(rng() & 0xFFFF) / 32768.0f - 1.0f);
    }
    CUDA_OK(cudaMemcpy(a.p, host.data(), host.size() * 2, cudaMemcpyHostToDevice));
    const int count = std::min(l.n, kSampleRows);
    for (int i = 0; i < count; ++i) {
      rows.push_back(l.n <= kSampleRows ? i : static_cast<int>(int64_t{l.n - 1} * i / (count - 1)));
    }
    Memory<int> device_rows(rows.size());
    Memory<double> out(size_t(m) * count);
    CUDA_OK(cudaMemcpy(device_rows.p, rows.data(), rows.size() * 4, cudaMemcpyHostToDevice));
    launch_reference(l.codes.p, l.scales.p, l.row_alpha.p, a.p, device_rows.p, count, l.k, m,
                     out.p);
    CUDA_OK(cudaDeviceSynchronize());
    want.resize(size_t(m) * count);
    CUDA_OK(cudaMemcpy(want.data(), out.p, want.size() * 8, cudaMemcpyDeviceToHost));
    if (!has_c) return;
    std::vector<uint8_t> c_host(bytes());
    for (size_t i = 0; i < c_host.size() / size_of(type); ++i) {
      put(c_host.data(), i, static_cast<float>(static_cast<int>(rng() % 17) - 8) / 8.0f);
    }
    CUDA_OK(cudaMemcpy(c.p, c_host.data(), c_host.size(), cudaMemcpyHostToDevice));
    for (size_t i = 0; i < want.size(); ++i) want[i] += get(c_host.data(), place(i));
  }

  size_t bytes() const { return size_t(m) * d_stride * size_of(type) + kGuard; }
  // Where the i-th of `want` is in the output.
  size_t place(size_t i) const { return i / rows.size() * d_stride + rows[i % rows.size()]; }
  void put(uint8_t* to, size_t i, float value) const {
    const uint16_t half = type == DType::kBF16 ? float_to_bf16(value) : float_to_fp16(value);
    if (type == DType::kF32) {
      std::memcpy(to + 4 * i, &value, 4);
    } else {
      std::memcpy(to + 2 * i, &half, 2);
    }
  }
  float get(const uint8_t* from, size_t i) const {
    if (type == DType::kF32) {
      float value;
      std::memcpy(&value, from + 4 * i, 4);
      return value;
    }
    uint16_t half;
    std::memcpy(&half, from + 2 * i, 2);
    return type == DType::kBF16 ? bf16_to_float(half) : fp16_to_float(half);
  }
  std::vector<uint8_t> output() const {
    std::vector<uint8_t> host(bytes());
    CUDA_OK(cudaMemcpy(host.data(), d.p, host.size(), cudaMemcpyDeviceToHost));
    return host;
  }
  // ||d - want|| / ||want||; NaN where the guards between rows and behind d were written.
  double error(const std::vector<uint8_t>& got) const {
    double wrong = 0.0, all = 0.0;
    for (size_t i = 0; i < want.size(); ++i) {
      const double x = get(got.data(), place(i)) - want[i];
      wrong += x * x;
      all += want[i] * want[i];
    }
    const auto untouched = [&](size_t begin, size_t end) {
      return std::all_of(got.begin() + static_cast<int64_t>(begin),
                         got.begin() + static_cast<int64_t>(end),
                         [](uint8_t byte) { return byte == 0xFF; });
    };
    const size_t element = size_of(type);
    for (int i = 0; i < m; ++i) {
      const size_t row = size_t(i) * d_stride;
      if (!untouched((row + layer.n) * element, (row + d_stride) * element)) return NAN;
    }
    if (!untouched(bytes() - kGuard, bytes())) return NAN;
    return std::sqrt(wrong / all);
  }
  template <class Launch>
  double check(const Launch& launch) const {
    std::vector<uint8_t> first;
    for (int run = 0; run < 2; ++run) {
      CUDA_OK(cudaMemset(d.p, 0xFF, bytes()));
      CUDA_OK(cudaDeviceSynchronize());
      launch(run);
      const cudaError_t e = cudaStreamSynchronize(stream());
      if (e != cudaSuccess) {
        std::printf("FAULT n=%d k=%d m=%d %s\n", layer.n, layer.k, m, cudaGetErrorString(e));
        std::exit(1);
      }
      if (run == 0) first = output();
    }
    return output() == first ? error(first) : NAN;
  }
};

}  // namespace nibble::bench
