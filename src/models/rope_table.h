// The rotary embedding's frequencies.
#pragma once

#include <vector>

#include "models/config.h"

namespace nibble {

struct RopeTable {
  std::vector<float> inv_freq;  // [head_dim / 2], radians per position
  float attention_factor = 1.0f;
};

// theta^(-2i/head_dim), scaled as config.type says: "linear" by 1/factor (position interpolation,
// arXiv 2306.15595); "llama3" by wavelength (the Llama 3.1 release); "yarn" by rotations within the
// original context (arXiv 2309.00071, section 3.2). Computed in double.
RopeTable make_rope_table(const RopeConfig& config, int64_t head_dim);

}  // namespace nibble
