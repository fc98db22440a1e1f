#include "kernels/cuda/fp4_rows.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "base/cuda.h"
#include "base/thread_pool.h"
#include "formats/e2m1.h"
#include "formats/e4m3.h"
#include "formats/ue8m0.h"

namespace nibble::cuda {
namespace {

constexpr ScaleLayout kLayout = ScaleLayout::kSwizzled128x4;
constexpr int64_t kAlignment = 256;  // of every part

int64_t aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// Scales of 128 rows.
int64_t tile_bytes(WeightFormat format, int64_t k) {
  return scale_bytes(kLayout, kFp4RowsTile, k / block_size(format));
}

Fp4RowsPlaces places_of(const WeightTensor& t) {
  return {t.format, t.n, t.k, std::max<size_t>(t.segments.size(), 1)};
}

void decode_row(const PreparedWeight& w, int64_t i, float* out) {
  const int64_t of_tile = tile_bytes(w.format, w.k);
  std::vector<uint8_t> codes(static_cast<size_t>(w.k / 2)), scales(static_cast<size_t>(of_tile));
  copy(codes.data(), w.codes + i * (w.k / 2), codes.size(), nullptr);
  copy(scales.data(), w.scales + i / kFp4RowsTile * of_tile, scales.size(), nullptr);
  synchronize(nullptr);
  unpack_fp4_row(w.format, i, w.k, codes.data(), scales.data(), out);
}

}  // namespace

Fp4RowsPlaces::Fp4RowsPlaces(WeightFormat format, int64_t n, int64_t k, size_t num_segments)
    : scales(aligned(n * (k / 2))),
      segment_scales(scales + aligned(scale_bytes(kLayout, n, k / block_size(format)))),
      end(segment_scales + static_cast<int64_t>(num_segments * sizeof(float))) {}

Support can_hold_rows(const WeightTensor& t) {
  if (!is_fp4(t.format)) {
    return Support::no("holds nvfp4 and mxfp4, found {}", to_string(t.format));
  }
  if (t.k % 32 != 0) {
    return Support::no(
        "rows of codes are whole pieces of 16 bytes: k must be a multiple of 32, "
        "found {}",
        t.k);
  }
  for (const WeightTensor::Segment& s : t.segments) {
    if (s.row_begin % kFp4RowsTile != 0) {
      return Support::no("segments begin at multiples of {} rows, found row {}", kFp4RowsTile,
                         s.row_begin);
    }
  }
  return Support::yes();
}

Support multiplies_fp4(const DeviceInfo& device) {
  if (device.kind != DeviceKind::kCuda) return Support::no("runs on a CUDA device only");
  if (std::ranges::find(kFp4Chips, device.sm) != std::end(kFp4Chips)) return Support::yes();
  return Support::no("needs compute capability 10.0, 10.3, 12.0 or 12.1, found sm_{}", device.sm);
}

Support can_prepare_rows(const WeightTensor& tensor, const DeviceInfo& device) {
  if (const Support s = multiplies_fp4(device); !s) return s;
  return can_hold_rows(tensor);
}

PreparedWeight prepare_rows(const WeightTensor& tensor, Stream stream) {
  const Fp4RowsPlaces at = places_of(tensor);
  std::vector<uint8_t> packed(static_cast<size_t>(at.end));
  const auto pack = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) pack_fp4_row(tensor, i, packed.data());
  };
  if (stream.pool != nullptr) {
    stream.pool->parallel_for(tensor.n, 16, pack);
  } else {
    pack(0, tensor.n);
  }
  pack_fp4_segment_scales(tensor, packed.data());
  const auto memory = std::make_shared<Buffer>(stream.index, packed.size());
  copy(memory->data(), packed.data(), packed.size(), stream.cuda);
  synchronize(stream.cuda);

  PreparedWeight w;
  static_cast<WeightTensor&>(w) = tensor;
  w.layout = WeightLayout::kFp4Rows;
  w.codes = memory->data();
  w.scales = memory->data() + at.scales;
  w.bytes = static_cast<size_t>(at.segment_scales);
  w.decode_row = decode_row;
  w.owner = memory;
  return w;
}

int64_t num_fp4_segments(const PreparedWeight& w) {
  return std::max<int64_t>(static_cast<int64_t>(w.segments.size()), 1);
}

Fp4Segment fp4_segment(const PreparedWeight& w, int64_t index) {
  const auto begin_of = [&](int64_t s) {
    return s < static_cast<int64_t>(w.segments.size()) ? w.segments[s].row_begin
                                                       : (s == 0 ? 0 : w.n);
  };
  const int64_t begin = begin_of(index);
  return {.begin = begin,
          .end = begin_of(index + 1),
          .codes = w.codes + begin * (w.k / 2),
          .scales = w.scales + begin / kFp4RowsTile * tile_bytes(w.format, w.k)};
}

const float* fp4_segment_scales(const PreparedWeight& w) {
  return reinterpret_cast<const float*>(w.codes + places_of(w).segment_scales);
}

void pack_fp4_row(const WeightTensor& t, int64_t i, uint8_t* packed) {
  const int64_t size = block_size(t.format), blocks = t.k / size;
  uint8_t* const codes = packed + i * (t.k / 2);
  uint8_t* const scales = packed + places_of(t).scales;
  std::memcpy(codes, t.codes + i * (t.k / 2), static_cast<size_t>(t.k / 2));
  for (int64_t block = 0; block < blocks; ++block) {
    uint8_t scale = t.scales[i * blocks + block];
    if (t.format == WeightFormat::kNvfp4) {
      const bool negative = (scale & 0x80) != 0;
      scale &= 0x7F;
      for (int64_t j = 0; negative && j < size / 2; ++j) codes[block * size / 2 + j] ^= 0x88;
    }
    scales[scale_offset(kLayout, i, block, blocks)] = scale;
  }
}

void pack_fp4_segment_scales(const WeightTensor& t, uint8_t* packed) {
  const int64_t at = places_of(t).segment_scales;
  std::vector<float> values(std::max<size_t>(t.segments.size(), 1), 1.0f);
  for (size_t s = 0; s < t.segments.size(); ++s) {
    if (t.format == WeightFormat::kNvfp4) values[s] = t.segments[s].global_decode_scale;
  }
  std::memcpy(packed + at, values.data(), values.size() * sizeof(float));
}

void unpack_fp4_row(WeightFormat format, int64_t i, int64_t k, const uint8_t* codes,
                    const uint8_t* tile_scales, float* out) {
  const int64_t size = block_size(format);
  for (int64_t j = 0; j < k; ++j) {
    const uint8_t scale = tile_scales[scale_offset(kLayout, i % kFp4RowsTile, j / size, k / size)];
    const auto code = static_cast<uint8_t>(codes[j / 2] >> (j % 2 * 4) & 15);
    out[j] = e2m1_to_float(code) *
             (format == WeightFormat::kMxfp4 ? ue8m0_to_float(scale) : e4m3_to_float(scale));
  }
}

}  // namespace nibble::cuda
