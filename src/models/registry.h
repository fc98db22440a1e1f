// The architectures that Nibble runs.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "models/decoder_layer.h"

namespace nibble {

// A model: a file that defines one of these, and its line in registry.cc.
struct Architecture {
  std::string_view name;  // in config.json's architectures
  // The weights of one layer; `prefix` is "model.layers.0".
  DecoderLayer (*load_layer)(const WeightLoader& loader, const std::string& prefix);
  // Takes the pass's x through layer number `index`.
  void (*forward_layer)(const DecoderLayer& layer, int64_t index, DecoderPass& pass);
};

std::span<const Architecture* const> architectures();

// Throws kUnsupported, listing the known ones.
const Architecture& find_architecture(std::string_view name);

}  // namespace nibble
