#include "kernels/cpu/gemm.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "base/host_arena.h"
#include "base/thread_pool.h"
#include "formats/e2m1.h"
#include "formats/e4m3.h"
#include "formats/float16.h"
#include "formats/ue8m0.h"
#include "kernels/cpu/activations.h"

namespace nibble::cpu {
namespace {

// Weights are widened and multiplied in chunks of this many along K: one NVFP4 block, half an MXFP4
// block, one block of int8 activations. The sums of a chunk are kLanes wide, which compilers turn
// into vectors without reordering anything.
constexpr int kChunk = 16;
constexpr int kLanes = 8;
// Rows of weights that are widened together before they meet every row of A: 4 x 1536 fp32 still
// fit the first-level cache.
constexpr int kPanelRows = 4;

// A byte of two codes -> two values: one load instead of two decodes (baseline x86-64 has no byte
// shuffle).
constexpr auto kPairTable = [] {
  std::array<std::array<float, 2>, 256> table{};
  for (int byte = 0; byte < 256; ++byte) {
    table[byte] = {e2m1_to_float(byte & 0xF), e2m1_to_float(static_cast<uint8_t>(byte >> 4))};
  }
  return table;
}();
constexpr auto kE4m3Table = [] {
  std::array<float, 256> table{};
  for (int code = 0; code < 256; ++code) table[code] = e4m3_to_float(static_cast<uint8_t>(code));
  return table;
}();

// Codes [k, k + kChunk) of row i without their block scale.
template <WeightFormat kFormat>
inline void widen_codes(const PreparedWeight& w, int64_t i, int64_t k, float* out) {
  const uint8_t* row = w.codes + i * row_bytes(kFormat, w.k);
  if constexpr (is_fp4(kFormat)) {
    for (int j = 0; j < kChunk / 2; ++j) {
      std::memcpy(out + 2 * j, kPairTable[row[k / 2 + j]].data(), 2 * sizeof(float));
    }
  } else if constexpr (kFormat == WeightFormat::kF8) {
    for (int j = 0; j < kChunk; ++j) out[j] = kE4m3Table[row[k + j]];
  } else if constexpr (kFormat == WeightFormat::kF32) {
    std::memcpy(out, row + 4 * k, kChunk * sizeof(float));
  } else {
    uint16_t bits[kChunk];
    std::memcpy(bits, row + 2 * k, sizeof(bits));
    for (int j = 0; j < kChunk; ++j) {
      out[j] = kFormat == WeightFormat::kBF16 ? bf16_to_float(bits[j]) : fp16_to_float(bits[j]);
    }
  }
}

template <WeightFormat kFormat>
inline float chunk_scale(const PreparedWeight& w, int64_t i, int64_t k) {
  if constexpr (kFormat == WeightFormat::kNvfp4) {
    return kE4m3Table[w.scales[i * (w.k / 16) + k / 16]];
  } else if constexpr (kFormat == WeightFormat::kMxfp4) {
    return ue8m0_to_float(w.scales[i * (w.k / 32) + k / 32]);
  } else {
    return 1.0f;
  }
}

inline float sum_lanes(const float* lanes) {
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
         ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

// One row of A: the codes go from the table straight into the products.
template <WeightFormat kFormat>
float dot(const PreparedWeight& w, int64_t i, const float* a) {
  float sum[kLanes] = {};
  for (int64_t k = 0; k < w.k; k += kChunk) {
    alignas(32) float x[kChunk];
    widen_codes<kFormat>(w, i, k, x);
    const float scale = chunk_scale<kFormat>(w, i, k);
    for (int l = 0; l < kLanes; ++l) {
      sum[l] += (x[l] * a[k + l] + x[l + kLanes] * a[k + l + kLanes]) * scale;
    }
  }
  return sum_lanes(sum);
}

// kPanelRows widened rows against two rows of A.
void panel_dot(const float* panel, int64_t k_size, const float* a0, const float* a1,
               float out[2][kPanelRows]) {
  float sum[2][kPanelRows][4] = {};
  for (int64_t k = 0; k < k_size; k += 4) {
    for (int r = 0; r < kPanelRows; ++r) {
      for (int l = 0; l < 4; ++l) {
        const float x = panel[r * k_size + k + l];
        sum[0][r][l] += x * a0[k + l];
        sum[1][r][l] += x * a1[k + l];
      }
    }
  }
  for (int t = 0; t < 2; ++t) {
    for (int r = 0; r < kPanelRows; ++r) {
      out[t][r] = (sum[t][r][0] + sum[t][r][2]) + (sum[t][r][1] + sum[t][r][3]);
    }
  }
}

template <WeightFormat kFormat>
void run(const GemmArgs& args, Stream stream) {
  const GemmDesc& d = args.desc;
  const PreparedWeight& w = *args.b;
  const MatrixView a = rounded_activations(args, stream);
  const auto store = [&](int64_t i, int64_t j, float sum) {
    args.d.row<float>(i)[j] = sum * w.alpha(j) + (d.has_c ? args.c.row<const float>(i)[j] : 0.0f);
  };
  stream.pool->parallel_for(d.n, kPanelRows, [&](int64_t begin, int64_t end) {
    if (d.m == 1) {
      for (int64_t j = begin; j < end; ++j) store(0, j, dot<kFormat>(w, j, a.row<const float>(0)));
      return;
    }
    static thread_local std::vector<float> panel;  // grows to the widest k once per thread
    panel.resize(kPanelRows * d.k);
    for (int64_t j = begin; j < end; j += kPanelRows) {
      const int64_t rows = std::min<int64_t>(kPanelRows, end - j);
      for (int64_t r = 0; r < kPanelRows; ++r) {
        const int64_t row = j + std::min(r, rows - 1);
        for (int64_t k = 0; k < d.k; k += kChunk) {
          float* out = &panel[r * d.k + k];
          widen_codes<kFormat>(w, row, k, out);
          const float scale = chunk_scale<kFormat>(w, row, k);
          for (int l = 0; l < kChunk; ++l) out[l] *= scale;
        }
      }
      for (int64_t i = 0; i < d.m; i += 2) {
        const int64_t i1 = std::min(i + 1, d.m - 1);
        float out[2][kPanelRows];
        panel_dot(panel.data(), d.k, a.row<const float>(i), a.row<const float>(i1), out);
        for (int64_t r = 0; r < rows; ++r) {
          store(i, j + r, out[0][r]);
          if (i1 != i) store(i1, j + r, out[1][r]);
        }
      }
    }
  });
}

void launch(const GemmArgs& args, const KernelConfig&, Stream stream) {
  switch (args.desc.weight) {
    case WeightFormat::kF32:
      return run<WeightFormat::kF32>(args, stream);
    case WeightFormat::kF16:
      return run<WeightFormat::kF16>(args, stream);
    case WeightFormat::kBF16:
      return run<WeightFormat::kBF16>(args, stream);
    case WeightFormat::kNvfp4:
      return run<WeightFormat::kNvfp4>(args, stream);
    case WeightFormat::kMxfp4:
      return run<WeightFormat::kMxfp4>(args, stream);
    case WeightFormat::kF8:
      return run<WeightFormat::kF8>(args, stream);
  }
}

Support can_implement(const GemmDesc& d, const DeviceInfo& device) {
  if (device.kind != DeviceKind::kCpu) return Support::no("runs on a CPU only");
  if (d.layout != WeightLayout::kCanonical) {
    return Support::no("reads canonical weights, found {}", to_string(d.layout));
  }
  if (d.a_type != DType::kF32 || d.d_type != DType::kF32) {
    return Support::no("activations must be F32, found {} and {}", to_string(d.a_type),
                       to_string(d.d_type));
  }
  if (d.activation == ActivationMode::kFp4) return Support::no("no fp4 activations");
  if (d.has_bias || d.silu_mul) return Support::no("no bias and no silu_mul");
  if (d.k % kChunk != 0) {
    return Support::no("k must be a multiple of {}, found {}", kChunk, d.k);
  }
  return Support::yes();
}

size_t workspace_bytes(const GemmDesc& d, const KernelConfig&, const DeviceInfo&) {
  return rounded_activation_bytes(d);
}

Support can_prepare(const WeightTensor&, const DeviceInfo& device) {
  return device.kind == DeviceKind::kCpu ? Support::yes() : Support::no("runs on a CPU only");
}

// fp8 rows that hold a NaN get a NaN scale: kernels that widen by shifting bits lose it. The same
// pass copies them out of the file's small pages: an output matrix is read whole for every token,
// and from huge pages it comes a sixth faster. Wider formats stay where they are, they cost memory.
PreparedWeight prepare(const WeightTensor& tensor, Stream stream) {
  PreparedWeight w = prepare_canonical(tensor);
  if (w.format != WeightFormat::kF8) return w;
  HostArena own;
  HostArena& arena = stream.arena != nullptr ? *stream.arena : own;
  const auto codes = arena.allocate(static_cast<size_t>(w.n * w.k));
  const auto alpha = arena.allocate(static_cast<size_t>(w.n) * sizeof(float));
  float* const row_alpha = reinterpret_cast<float*>(alpha.get());
  stream.pool->parallel_for(w.n, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const uint8_t* row = w.codes + i * w.k;
      uint8_t largest = 0;
      for (int64_t j = 0; j < w.k; ++j) largest = std::max<uint8_t>(largest, row[j] & 0x7F);
      std::memcpy(codes.get() + i * w.k, row, static_cast<size_t>(w.k));
      row_alpha[i] = largest == 0x7F ? std::numeric_limits<float>::quiet_NaN() : w.row_scales[i];
    }
  });
  w.codes = codes.get();
  w.row_alpha = row_alpha;
  w.owner = std::make_shared<std::array<std::shared_ptr<const void>, 3>>(
      std::array<std::shared_ptr<const void>, 3>{w.owner, codes, alpha});
  return w;
}

}  // namespace

const WeightLayoutImpl kCanonicalLayout = {
    .layout = WeightLayout::kCanonical, .can_prepare = can_prepare, .prepare = prepare};

const GemmImpl kPortableGemm = {.name = "cpu_portable_gemm",
                                .can_implement = can_implement,
                                .launch = launch,
                                .workspace_bytes = workspace_bytes};

}  // namespace nibble::cpu
