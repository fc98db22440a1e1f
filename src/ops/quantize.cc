#include "ops/quantize.h"

#include <algorithm>

#include "base/check.h"
#include "formats/scale_layout.h"

namespace nibble {
namespace {

int64_t padded(int64_t rows, int64_t tile) { return (rows + tile - 1) / tile * tile; }

}  // namespace

int64_t quantize_scale_rows(const QuantizeDesc& d) {
  const int64_t tile = scale_tile_rows(d.layout);
  if (d.experts == 0) return padded(d.m, tile);
  if (!d.ragged) return d.experts * padded(d.m / d.experts, tile);
  // Every expert that has rows may have one in its last tile.
  return (d.m + std::min(d.experts, d.m) * (tile - 1)) / tile * tile;
}

int64_t quantize_scale_bytes(const QuantizeDesc& d) {
  return quantize_scale_rows(d) * padded_scale_cols(d.layout, d.k / block_size(d.format));
}

std::vector<RowGroup> row_groups(const QuantizeArgs& args) {
  const QuantizeDesc& d = args.desc;
  const int64_t experts = std::max<int64_t>(d.experts, 1);
  std::vector<RowGroup> groups(static_cast<size_t>(experts));
  int64_t scale_row = 0;
  for (int64_t e = 0; e < experts; ++e) {
    RowGroup& g = groups[static_cast<size_t>(e)];
    g.begin = d.ragged ? args.expert_offsets[e] : d.m / experts * e;
    g.end = d.ragged ? args.expert_offsets[e + 1] : d.m / experts * (e + 1);
    g.scale_row = scale_row;
    NIBBLE_CHECK(
        0 <= g.begin && g.begin <= g.end && g.end <= d.m, ErrorCode::kInvalidArgument,
        "quantize: expert_offsets must not decrease and lie in [0, {}], found {} .. {} for "
        "expert {}",
        d.m, g.begin, g.end, e);
    scale_row += padded(g.end - g.begin, scale_tile_rows(d.layout));
  }
  return groups;
}

}  // namespace nibble
