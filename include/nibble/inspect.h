// What a model folder holds and what its layers would run on, read without loading the weights.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "nibble/engine.h"
#include "nibble/gemm.h"

namespace nibble {

struct ModelReport {
  struct Tensor {
    std::string name, dtype, file;
    std::vector<int64_t> shape;
    int64_t bytes = 0;
  };
  // Matrix weights of one shape and scheme, e.g. every layer's q_proj.
  struct Linear {
    std::string modules;  // "model.layers.*.self_attn.q_proj"
    int64_t count = 0;
    WeightFormat format = WeightFormat::kF32;
    std::string scheme;  // the config's word; empty: plain
    int64_t n = 0, k = 0;
    int64_t bytes = 0;    // of all of them
    KernelChoice decode;  // one token
    KernelChoice prompt;  // many
  };

  std::string architecture;
  std::vector<std::pair<std::string, std::string>> config;  // what the model's code reads of it
  std::string quantization;                                 // the checkpoint's scheme; "none"
  std::vector<Linear> linears;
  std::vector<Tensor> tensors;
  int64_t parameters = 0;
  int64_t bytes = 0;
  double open_seconds = 0.0;  // to read every header and config
};

// Throws kIo, kCheckpoint, kUnsupported.
ModelReport inspect(const std::filesystem::path& dir, const Device& device,
                    const EngineOptions& options = {});

}  // namespace nibble
