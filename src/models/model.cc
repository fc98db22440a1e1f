#include "models/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "dispatch/ops.h"

namespace nibble {

Model::Model(const Checkpoint& checkpoint, ModelConfig config, const Device& device,
             ActivationMode activation, int64_t context)
    : config_(std::move(config)),
      device_(device),
      architecture_(&find_architecture(config_.architecture)),
      pass_(config_, device_, context, std::min(context, kMaxRows)) {
  const WeightLoader loader(checkpoint, device_, config_, activation, std::min(context, kMaxRows));
  const int64_t hidden = config_.hidden_size;
  const int64_t vocab = config_.vocab_size;
  embedding_ = loader.table({"model.embed_tokens", vocab}, hidden);
  for (int64_t i = 0; i < config_.num_layers; ++i) {
    layers_.push_back(architecture_->load_layer(loader, fmt::format("model.layers.{}", i)));
  }
  final_norm_ = loader.vector("model.norm.weight", hidden);
  lm_head_ = loader.linear({{config_.tied_embeddings ? "model.embed_tokens" : "lm_head", vocab}},
                           {.k = hidden, .max_rows = kMaxLogitRows});
  head_memory_ = AnonymousMemory(
      static_cast<size_t>(kMaxLogitRows * (hidden + vocab)) * sizeof(float), "logits");
}

void Model::run(std::span<const int32_t> tokens, int64_t past, int64_t needed) {
  const int64_t rows = static_cast<int64_t>(tokens.size());
  pass_.begin(rows, past, needed);
  embedding({.desc = {.rows = rows,
                      .cols = config_.hidden_size,
                      .format = embedding_->format,
                      .layout = embedding_->layout,
                      .type = DType::kF32},
             .tokens = tokens.data(),
             .table = embedding_.get(),
             .y = pass_.x()},
            device_);
  for (int64_t i = 0; i < config_.num_layers; ++i) {
    architecture_->forward_layer(layers_[i], i, pass_);
  }
}

std::span<const float> Model::logits(int64_t first, int64_t count) {
  const int64_t hidden = config_.hidden_size;
  const int64_t vocab = config_.vocab_size;
  float* const normalized = static_cast<float*>(head_memory_.data());
  float* const out = normalized + kMaxLogitRows * hidden;
  const MatrixView h{normalized, DType::kF32, count, hidden, hidden};
  pass_.normalize_rows(final_norm_, first, h);
  lm_head_.run(h, {out, DType::kF32, count, vocab, vocab});
  return {out, static_cast<size_t>(count * vocab)};
}

size_t Model::matrix_bytes() const {
  size_t sum = lm_head_.bytes();
  for (const DecoderLayer& layer : layers_) {
    for (const Linear* linear : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down}) {
      sum += linear->bytes();
    }
  }
  return sum;
}

}  // namespace nibble
