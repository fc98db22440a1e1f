// Matrices stacked along their rows, each with its own global scale and padding.
#include "kernels/cuda/quantize_rows.cuh"

namespace nibble::cuda {
namespace {

// One CTA, a thread an expert. An expert's tiles and scale rows follow those of the experts before
// it: sums that all threads take together, in steps of doubled distance. Then a thread a tile finds
// the expert that holds it.
__global__ void __launch_bounds__(kMaxExperts)
    tiles_kernel(const ExpertRows rows, uint32_t m, uint32_t scale_tile, int64_t scale_rows,
                 ExpertTile* tiles, uint32_t num_tiles) {
  struct Part {
    uint32_t begin, end;            // rows
    uint32_t tiles_end, scale_end;  // of this expert and all before it
  };
  __shared__ Part parts[kMaxExperts];
  pdl_wait();
  const uint32_t e = threadIdx.x;
  Part mine = {};
  if (e < rows.experts) {
    if (rows.offsets == nullptr) {
      mine.begin = m / rows.experts * e;
      mine.end = m / rows.experts * (e + 1);
    } else {
      const auto inside = [&](int32_t row) {
        return row < 0 ? 0 : min(static_cast<uint32_t>(row), m);
      };
      mine.begin = inside(rows.offsets[e]);
      mine.end = max(mine.begin, inside(rows.offsets[e + 1]));
    }
    mine.tiles_end = (mine.end - mine.begin + kWorkTileRows - 1) / kWorkTileRows;
    mine.scale_end = (mine.end - mine.begin + scale_tile - 1) / scale_tile * scale_tile;
  }
  for (uint32_t distance = 1; distance < rows.experts; distance *= 2) {
    parts[e] = mine;
    __syncthreads();
    if (e >= distance) {
      mine.tiles_end += parts[e - distance].tiles_end;
      mine.scale_end += parts[e - distance].scale_end;
    }
    __syncthreads();
  }
  parts[e] = mine;
  __syncthreads();
  for (uint32_t t = threadIdx.x; t < num_tiles; t += kMaxExperts) {
    uint32_t low = 0, high = rows.experts;  // the first expert whose tiles end behind t
    while (low < high) {
      const uint32_t middle = (low + high) / 2;
      if (parts[middle].tiles_end > t) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    ExpertTile tile = {};
    if (low < rows.experts) {
      const Part before = low == 0 ? Part{} : parts[low - 1];
      const uint32_t skipped = (t - before.tiles_end) * kWorkTileRows;
      tile = {parts[low].begin + skipped, before.scale_end + skipped,
              min(parts[low].end - parts[low].begin - skipped, uint32_t{kWorkTileRows}), low};
      // Overlapping experts may have more rows than the scales have room for.
      const uint32_t padded = (tile.rows + scale_tile - 1) / scale_tile * scale_tile;
      if (int64_t{tile.scale_row} + padded > scale_rows) tile.rows = 0;
    }
    tiles[t] = tile;
  }
  pdl_trigger();
}

template <WeightFormat kFormat, DType kType>
struct Experts
    : Variant<kFormat, kType, size_of(kType) == 2 ? 2 : 1, size_of(kType) == 2 ? 10 : 8> {
  static constexpr bool kExperts = true;
};

template <WeightFormat kFormat>
void launch_format(const QuantizeParams& p, nibble::Stream stream) {
  switch (p.type) {
    case DType::kF32:
      return launch_variant<Experts<kFormat, DType::kF32>>(p, stream);
    case DType::kF16:
      return launch_variant<Experts<kFormat, DType::kF16>>(p, stream);
    case DType::kF8E4M3:
      return launch_variant<Experts<kFormat, DType::kF8E4M3>>(p, stream);
    default:
      return launch_variant<Experts<kFormat, DType::kBF16>>(p, stream);
  }
}

}  // namespace

uint32_t num_expert_tiles(int64_t m, const ExpertRows& rows) {
  // Every expert that has rows may have one in its last tile.
  return static_cast<uint32_t>(m / kWorkTileRows + std::min<int64_t>(rows.experts, m));
}

void launch_expert_tiles(const QuantizeParams& p, const ExpertRows& rows, int64_t scale_rows,
                         ExpertTile* tiles, nibble::Stream stream) {
  launch({.grid = 1, .block = kMaxExperts, .pdl = stream.pdl, .stream = stream}, "expert_tiles",
         tiles_kernel, rows, static_cast<uint32_t>(p.m),
         static_cast<uint32_t>(scale_tile_rows(p.layout)), scale_rows, tiles,
         num_expert_tiles(p.m, rows));
}

void launch_quantize_experts(const QuantizeParams& params, nibble::Stream stream) {
  if (params.format == WeightFormat::kMxfp4) {
    launch_format<WeightFormat::kMxfp4>(params, stream);
  } else {
    launch_format<WeightFormat::kNvfp4>(params, stream);
  }
}

}  // namespace nibble::cuda
