#include <cstring>

#include "base/check.h"
#include "formats/e2m1.h"
#include "formats/e4m3.h"
#include "formats/float16.h"
#include "formats/ue8m0.h"
#include "ops/gemm.h"

namespace nibble {
namespace {

template <class T>
T load_at(const uint8_t* bytes, int64_t index) {  // checkpoints align nothing
  T value;
  std::memcpy(&value, bytes + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

void decode_row(const PreparedWeight& w, int64_t i, float* out) {
  const uint8_t* row = w.codes + i * row_bytes(w.format, w.k);
  switch (w.format) {
    case WeightFormat::kF32:
      std::memcpy(out, row, 4 * w.k);
      return;
    case WeightFormat::kF16:
      for (int64_t j = 0; j < w.k; ++j) out[j] = fp16_to_float(load_at<uint16_t>(row, j));
      return;
    case WeightFormat::kBF16:
      for (int64_t j = 0; j < w.k; ++j) out[j] = bf16_to_float(load_at<uint16_t>(row, j));
      return;
    case WeightFormat::kF8:
      for (int64_t j = 0; j < w.k; ++j) out[j] = e4m3_to_float(row[j]);
      return;
    case WeightFormat::kNvfp4:
    case WeightFormat::kMxfp4: {
      const int64_t block = block_size(w.format);
      const uint8_t* scales = w.scales + i * (w.k / block);
      for (int64_t j = 0; j < w.k; j += 2) {
        const uint8_t s = scales[j / block];
        const float scale = w.format == WeightFormat::kNvfp4 ? e4m3_to_float(s) : ue8m0_to_float(s);
        out[j] = e2m1_to_float(row[j / 2] & 0xF) * scale;
        out[j + 1] = e2m1_to_float(row[j / 2] >> 4) * scale;
      }
    }
  }
}

}  // namespace

float PreparedWeight::alpha(int64_t i) const {
  if (row_scales != nullptr) return row_scales[i];
  float scale = 1.0f;
  for (const Segment& s : segments) {
    if (s.row_begin <= i) scale = s.global_decode_scale;
  }
  return scale;
}

PreparedWeight prepare_canonical(const WeightTensor& tensor) {
  PreparedWeight w;
  static_cast<WeightTensor&>(w) = tensor;
  w.layout = WeightLayout::kCanonical;
  w.decode_row = decode_row;
  w.bytes = static_cast<size_t>(w.n * row_bytes(w.format, w.k));
  if (is_fp4(w.format)) w.bytes += static_cast<size_t>(w.n * (w.k / block_size(w.format)));
  return w;
}

GemmArgs without_memory(const GemmDesc& desc) {
  static const PreparedWeight kNone;
  GemmArgs args;
  args.desc = desc;
  args.a = {nullptr, desc.a_type, desc.m, desc.k, desc.k};
  args.b = &kNone;
  args.d = {nullptr, desc.d_type, desc.m, desc.columns(), desc.columns()};
  return args;
}

}  // namespace nibble
