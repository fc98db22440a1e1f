// A decoder-only transformer with its weights, KV cache and activations.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "models/decoder_layer.h"
#include "models/registry.h"
#include "nibble/device.h"

namespace nibble {

class Model {
 public:
  // Tokens that go through the layers together: enough for a GEMM to be bound by arithmetic, few
  // enough that the activations of a large model stay in tens of megabytes.
  static constexpr int64_t kMaxRows = 512;
  // Rows of logits that are computed together; one row is as large as the vocabulary.
  static constexpr int64_t kMaxLogitRows = 32;

  // `context`: positions to provide for, at most config.context_length. Throws kCheckpoint,
  // kUnsupported, kIo. The checkpoint may be dropped afterwards.
  Model(const Checkpoint& checkpoint, ModelConfig config, const Device& device,
        ActivationMode activation, int64_t context);

  const ModelConfig& config() const { return config_; }
  const Device& device() const { return device_; }

  // Takes up to kMaxRows tokens at positions past, past + 1, ... through the layers. Positions
  // below `past` hold what earlier calls left there. Ids must be within the vocabulary. Only the
  // last `needed` tokens, 1 or more, get logits; the last layer spares the others what follows its
  // keys and values, 3 % of the arithmetic of 30 layers.
  void run(std::span<const int32_t> tokens, int64_t past, int64_t needed);

  // Logits [count, vocab_size] after tokens first, first + 1, ... of the last run, all of them
  // among those it needed; count is up to kMaxLogitRows. Valid until the next call.
  std::span<const float> logits(int64_t first, int64_t count);

  size_t matrix_bytes() const;  // that one token reads

 private:
  ModelConfig config_;
  Device device_;
  const Architecture* architecture_;
  std::shared_ptr<const PreparedWeight> embedding_;
  std::vector<DecoderLayer> layers_;
  std::vector<float> final_norm_;
  Linear lm_head_;
  DecoderPass pass_;
  AnonymousMemory head_memory_;  // normalized rows, then their logits
};

}  // namespace nibble
